"""Examples -> pixels: kept in one memory-mapped file, or decoded at every use."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from math import prod
from typing import Any, BinaryIO, Protocol

import numpy as np
import torch
from torch import Tensor

from beitcli.inputs.decode import Decoding, outcome
from beitcli.inputs.fetch import FetchLimits, fetch
from beitcli.inputs.loader import Loader
from beitcli.model.preprocessing import Preprocessing
from beitcli.records import Failure, Fetched, Found, Source
from beitcli.training.data.checks import Reading

MAX_KEPT = 8_000_000_000
"""Bytes of pixels kept in the work directory: 40,000 images of 256 × 256. Larger sets are decoded in every epoch."""


class Pixels(Protocol):
    """Pixels of the examples, indexed by their numbers."""

    def __len__(self) -> int: ...

    def __getitem__(self, numbers: Sequence[int]) -> Tensor:
        """uint8 of shape (n, height, width, 3)."""
        ...


@dataclass(frozen=True, slots=True)
class PixelReader:
    """Image reading: number of processes, limits, and whether to decode JPEGs at a fraction of their size (`fast`)."""

    workers: int
    decoding: Decoding
    fetching: FetchLimits
    fast: bool

    def decoding_for(self, preprocessing: Preprocessing) -> Decoding:
        return replace(self.decoding, scaled_to=preprocessing.scaled_to if self.fast else None)


def read_all(
    found: Iterable[Found],
    preprocessing: Preprocessing,
    reader: PixelReader,
    keep: BinaryIO | None,
    on_progress: Callable[[int], object],
) -> Reading:
    """Decode every image once and write the pixels of the readable ones to `keep`, one after the other.

    `on_progress` is called with the number of images read since the last call.
    """
    readable, digests, failures = [], [], []
    items: Iterator[Source | Fetched | Failure] = fetch(iter(found), reader.fetching, lambda _: None)
    with Loader(
        items, preprocessing, replace(reader.decoding_for(preprocessing), digest=True), reader.workers
    ) as loader:
        for number, item in enumerate(loader):
            on_progress(1)
            if isinstance(item, Failure):
                failures.append(item)
                continue
            readable.append(number)
            digests.append(item.identity.digest or b"")
            if keep:
                keep.write(item.pixels.numpy().data)
    return Reading(tuple(readable), tuple(digests), tuple(failures))


class KeptPixels:
    """The pixels that `read_all` wrote to the file at `path`, each image of `shape`."""

    def __init__(self, path: str, shape: tuple[int, ...]) -> None:
        count = os.path.getsize(path) // prod(shape)
        self._images = np.memmap(path, np.uint8, "r", shape=(count, *shape))
        self._arguments = path, shape

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle path and shape, so that a spawned process maps the file; numpy would send all pixels."""
        return KeptPixels, self._arguments

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, numbers: Sequence[int]) -> Tensor:
        return torch.from_numpy(self._images[np.asarray(numbers)])


class DecodedPixels:
    """Pixels decoded from their files at every use; an image that has become unreadable is grey."""

    def __init__(self, paths: Sequence[str], preprocessing: Preprocessing, decoding: Decoding) -> None:
        self._paths = paths
        self._preprocessing = preprocessing
        self._decoding = replace(decoding, seconds=0, digest=False)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, numbers: Sequence[int]) -> Tensor:
        return torch.from_numpy(np.stack([self._image(self._paths[number]) for number in numbers]))

    def _image(self, path: str) -> np.ndarray:
        decoded = outcome(Source(path), self._preprocessing, self._decoding, nullcontext())
        return np.full(self._preprocessing.shape, 128, np.uint8) if isinstance(decoded, Failure) else decoded[0]
