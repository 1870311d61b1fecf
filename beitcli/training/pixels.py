"""Examples -> their pixels: all kept in one file that is mapped, or decoded anew whenever they are wanted."""

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
from beitcli.model.recipe import Recipe
from beitcli.records import Failure, Fetched, Found, Source
from beitcli.training.reading import Reading

MOST_KEPT = 8_000_000_000
"""Bytes of pixels that are kept in the work folder: 40,000 pictures of 256 × 256. More are decoded in every epoch."""


class Pixels(Protocol):
    """The pixels of examples by their numbers."""

    def __len__(self) -> int: ...

    def __getitem__(self, numbers: Sequence[int]) -> Tensor:
        """uint8 of shape (n, height, width, 3)."""
        ...


@dataclass(frozen=True, slots=True)
class Reader:
    """How pictures are read: in so many processes, within these limits, and `fast` at a fraction of their size."""

    workers: int
    decoding: Decoding
    fetching: FetchLimits
    fast: bool

    def decoding_for(self, recipe: Recipe) -> Decoding:
        return replace(self.decoding, scaled_to=recipe.scaled_to if self.fast else None)


def read_all(
    found: Iterable[Found], recipe: Recipe, reader: Reader, keep: BinaryIO | None, tell: Callable[[int], object]
) -> Reading:
    """Decodes every picture once; the pixels of those that can be read are written to `keep`, one after the other.

    `tell` is given how many more have been read.
    """
    readable, digests, failures = [], [], []
    items: Iterator[Source | Fetched | Failure] = fetch(iter(found), reader.fetching, lambda _: None)
    with Loader(items, recipe, replace(reader.decoding_for(recipe), digest=True), reader.workers) as loader:
        for number, item in enumerate(loader):
            tell(1)
            if isinstance(item, Failure):
                failures.append(item)
                continue
            readable.append(number)
            digests.append(item.identity.digest or b"")
            if keep:
                keep.write(item.pixels.numpy().data)
    return Reading(tuple(readable), tuple(digests), tuple(failures))


class KeptPixels:
    """The pixels that `read_all` kept in the file at `path`, each picture of `shape`."""

    def __init__(self, path: str, shape: tuple[int, ...]) -> None:
        count = os.path.getsize(path) // prod(shape)
        self._pictures = np.memmap(path, np.uint8, "r", shape=(count, *shape))
        self._made_of = path, shape

    def __reduce__(self) -> tuple[Any, ...]:
        """For a process that is spawned: it maps the file, too, where numpy would send it all pixels."""
        return KeptPixels, self._made_of

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, numbers: Sequence[int]) -> Tensor:
        return torch.from_numpy(self._pictures[np.asarray(numbers)])


class DecodedPixels:
    """The pixels of files that are decoded at every use; one that cannot be read any more is grey."""

    def __init__(self, paths: Sequence[str], recipe: Recipe, decoding: Decoding) -> None:
        self._paths = paths
        self._recipe = recipe
        self._decoding = replace(decoding, seconds=0, digest=False)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, numbers: Sequence[int]) -> Tensor:
        return torch.from_numpy(np.stack([self._picture(self._paths[number]) for number in numbers]))

    def _picture(self, path: str) -> np.ndarray:
        answer = outcome(Source(path), self._recipe, self._decoding, nullcontext())
        return np.full(self._recipe.shape, 128, np.uint8) if isinstance(answer, Failure) else answer[0]
