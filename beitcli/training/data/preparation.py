"""Examples -> training and validation pixels, read once and checked before the training starts."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import Any

from beitcli.errors import UsageError
from beitcli.inputs.sources import look
from beitcli.model.preprocessing import Preprocessing
from beitcli.records import Failure, Source, printable
from beitcli.training.data.checks import Reading, check_readings, location
from beitcli.training.data.examples import Example, Split
from beitcli.training.data.pixels import MAX_KEPT, DecodedPixels, KeptPixels, PixelReader, Pixels, read_all
from beitcli.training.digests import write_digests
from beitcli.training.work_dir import WorkDir, work_errors

TRAINING, VALIDATION, OVERLAP, AMBIGUOUS = "training", "validation", "overlap", "ambiguous"


@dataclass(frozen=True, slots=True)
class SplitImages:
    """The images of a training, how to read them, and how many may fail."""

    split: Split
    reader: PixelReader
    max_errors: int

    def examples(self, name: str) -> Sequence[Example]:
        return self.split.training if name == TRAINING else self.split.validation


@dataclass(frozen=True, slots=True)
class LabelledPixels:
    """The readable examples, and their pixels."""

    pixels: Pixels
    examples: tuple[Example, ...]

    @property
    def targets(self) -> tuple[int, ...]:
        """The class number of each image."""
        return tuple(example.target for example in self.examples)


def fingerprint(split: Split) -> str:
    """Digest of the paths, classes, sizes and modification times of the images, to detect changes."""
    digest = hashlib.sha256(repr(split.classes).encode())
    for part in (split.training, split.validation):
        digest.update(str(len(part)).encode())
        for example, found in zip(part, look(example.found for example in part), strict=True):
            known = None if isinstance(found, Failure) else (found.known.size, found.known.mtime_ns)
            digest.update(f"{location(example)!a} {example.target} {known}".encode())
    return digest.hexdigest()


def prepare(
    work: WorkDir,
    images: SplitImages,
    preprocessings: Mapping[str, Preprocessing],
    on_progress: Callable[[int], object],
) -> dict[str, Any]:
    """Read every image once and keep its pixels where there is room; the result is JSON for `labelled_pixels`.

    `preprocessings` are those of both parts. OVERLAP is the number of images in both parts, AMBIGUOUS that of images in
    several classes. The digests of the training images are written to `work`. Raises UsageError as `check_readings`
    does.
    """
    work.start()
    readings = {name: _read(work, name, images, preprocessings[name], on_progress) for name in (TRAINING, VALIDATION)}
    identical = check_readings(images.split, readings[TRAINING], readings[VALIDATION], images.max_errors)
    write_digests(readings[TRAINING].digests, work.folder)
    counts = {OVERLAP: identical.overlap, AMBIGUOUS: identical.ambiguous}
    return {name: list(reading.readable) for name, reading in readings.items()} | counts


def labelled_pixels(
    work: WorkDir, name: str, images: SplitImages, preprocessing: Preprocessing, readable: Sequence[int]
) -> LabelledPixels:
    """The pixels and classes of the readable images."""
    examples = images.examples(name)
    chosen = tuple(examples[number] for number in readable)
    path = work.path(f"{name}.pixels")
    pixels: Pixels = (
        KeptPixels(path, preprocessing.shape)
        if os.path.exists(path)
        else DecodedPixels(
            [location(example) for example in chosen], preprocessing, images.reader.decoding_for(preprocessing)
        )
    )
    return LabelledPixels(pixels, chosen)


def _read(
    work: WorkDir, name: str, images: SplitImages, preprocessing: Preprocessing, on_progress: Callable[[int], object]
) -> Reading:
    found = [example.found for example in images.examples(name)]
    path = work.path(f"{name}.pixels")
    with suppress(FileNotFoundError):
        os.unlink(path)  # of an earlier run that was killed, perhaps with other images
    if len(found) * prod(preprocessing.shape) <= MAX_KEPT:
        with work_errors(), open(path, "wb") as stream:
            return read_all(found, preprocessing, images.reader, stream, on_progress)
    remote = [one for one in found if isinstance(one, Source) and one.kind != "path"]
    if remote:
        raise UsageError(
            f"`{printable(remote[0].name)}` would be downloaded in every epoch: there are too many images to keep",
            "download them first",
        )
    return read_all(found, preprocessing, images.reader, None, on_progress)
