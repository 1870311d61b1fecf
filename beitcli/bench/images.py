"""Images for the benchmark: the user's readable files, or synthetic photographs."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from statistics import median

import numpy as np
from PIL import Image

from beitcli.errors import UsageError
from beitcli.inputs.decode import Decoding
from beitcli.inputs.fetch import FetchLimits, fetch
from beitcli.inputs.loader import Decoded, Loader
from beitcli.model.preprocessing import Preprocessing
from beitcli.records import Failure, Fetched, Found, Source

_WIDTH, _HEIGHT = 500, 375
_OCTAVES = (2, 4, 8, 16, 32)
_CONTRAST, _GRAIN, _QUALITY = 50, 8, 85  # give files of 50 KB, like photographs of this size


@dataclass(frozen=True, slots=True)
class MeasuredImages:
    """Number and size of the images; `left_out` could not be read, `synthetic` ones were made for the benchmark."""

    count: int
    left_out: int
    median_bytes: float
    synthetic: bool


def make_images(count: int, folder: str) -> list[str]:
    """Make distinct JPEG files of 500 × 375 pixels, the same on every machine; return their paths."""
    os.mkdir(folder)
    paths = [os.path.join(folder, f"{number:05}.jpg") for number in range(count)]
    for number, path in enumerate(paths):
        _photograph(np.random.default_rng(number)).save(path, quality=_QUALITY)
    return paths


def _photograph(random: np.random.Generator) -> Image.Image:
    """Soft shapes of several sizes under grain, as costly to decode as a photograph."""
    field = np.full((_HEIGHT, _WIDTH, 3), 128, np.float32)
    for octave in _OCTAVES:
        coarse = random.standard_normal((3, 3 * octave, 4 * octave), np.float32)
        for channel in range(3):
            soft = Image.fromarray(coarse[channel]).resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC)
            field[..., channel] += np.asarray(soft) * (_CONTRAST / octave)
    field += random.standard_normal((_HEIGHT, _WIDTH, 1), np.float32) * _GRAIN
    return Image.fromarray(field.clip(0, 255).astype(np.uint8))


def readable_files(
    found: Iterable[Found], count: int, folder: str, preprocessing: Preprocessing, workers: int
) -> tuple[list[str], int]:
    """Paths of the readable ones of the first `count` images, and the number of broken ones.

    URLs and standard input are saved into `folder`. Images are decoded once, as isolated as in a run. Raises UsageError
    if none can be read.
    """
    os.mkdir(folder)
    files = _on_disk(fetch(islice(found, count), FetchLimits(), lambda _: None), folder)
    with Loader(files, preprocessing, Decoding(), workers) as loader:
        items = list(map(_path_of, loader))
    paths = [path for path in items if path is not None]
    if not paths:
        raise UsageError(
            "none of the images can be read", "`beit classify` reports the errors; without INPUT, images are generated"
        )
    return paths, len(items) - len(paths)


def _path_of(item: Decoded | Failure) -> str | None:
    """The path of an image that can be read again and again, or None."""
    path = item.source.location
    return path if isinstance(item, Decoded) and os.path.isfile(path) else None


def _on_disk(items: Iterable[Source | Fetched | Failure], folder: str) -> Iterator[Source | Failure]:
    for number, item in enumerate(items):
        if isinstance(item, Fetched):
            path = os.path.join(folder, f"{number:05}")
            with open(path, "wb") as stream:
                stream.write(item.data)
            yield Source(path)
        else:
            yield item


def described(paths: list[str], left_out: int, *, synthetic: bool) -> MeasuredImages:
    """Statistics of the images at these paths."""
    return MeasuredImages(len(paths), left_out, median(map(os.path.getsize, paths)), synthetic)
