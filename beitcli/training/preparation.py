"""Examples -> pixels to learn from and to validate with, read once and reported on before anything is trained."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import Any

from beitcli.errors import UsageError
from beitcli.inputs.sources import look
from beitcli.model.recipe import Recipe
from beitcli.records import Failure, Source, printable
from beitcli.training.examples import Example, Split
from beitcli.training.pixels import MOST_KEPT, DecodedPixels, KeptPixels, Pixels, Reader, read_all
from beitcli.training.reading import Reading, check_readings, location
from beitcli.training.workplace import Workplace, work_errors

TRAINING, VALIDATION, DOUBLES = "training", "validation", "doubles"


@dataclass(frozen=True, slots=True)
class Pictures:
    """The pictures of a training, how they are read, and how many may fail."""

    split: Split
    reader: Reader
    most_errors: int

    def examples(self, name: str) -> Sequence[Example]:
        return self.split.training if name == TRAINING else self.split.validation


@dataclass(frozen=True, slots=True)
class Part:
    """Pixels and the number of each picture's class."""

    pixels: Pixels
    targets: tuple[int, ...]


def fingerprint(split: Split) -> str:
    """What tells whether the pictures are still the same: their paths, classes, sizes and times, digested."""
    digest = hashlib.sha256(repr(split.classes).encode())
    for part in (split.training, split.validation):
        digest.update(str(len(part)).encode())
        for example, found in zip(part, look(example.found for example in part), strict=True):
            known = None if isinstance(found, Failure) else (found.known.size, found.known.mtime_ns)
            digest.update(f"{location(example)!a} {example.target} {known}".encode())
    return digest.hexdigest()


def prepare(
    work: Workplace, pictures: Pictures, recipes: Mapping[str, Recipe], tell: Callable[[int], object]
) -> dict[str, Any]:
    """Reads every picture once, keeps its pixels where there is room, and gives back what `part_of` needs.

    `recipes` are those of both parts. With it comes how many pictures are doubles: to learn from and to validate with.
    Raises UsageError as `check_readings` does.
    """
    work.start()
    readings = {name: _read(work, name, pictures, recipes[name], tell) for name in (TRAINING, VALIDATION)}
    doubles = check_readings(pictures.split, readings[TRAINING], readings[VALIDATION], pictures.most_errors)
    return {name: list(reading.readable) for name, reading in readings.items()} | {DOUBLES: doubles}


def part_of(work: Workplace, name: str, pictures: Pictures, recipe: Recipe, readable: Sequence[int]) -> Part:
    """The pixels and classes of the pictures that could be read."""
    examples = pictures.examples(name)
    chosen = [examples[number] for number in readable]
    path = work.path(f"{name}.pixels")
    pixels: Pixels = (
        KeptPixels(path, recipe.shape)
        if os.path.exists(path)
        else DecodedPixels([location(example) for example in chosen], recipe, pictures.reader.decoding_for(recipe))
    )
    return Part(pixels, tuple(example.target for example in chosen))


def _read(work: Workplace, name: str, pictures: Pictures, recipe: Recipe, tell: Callable[[int], object]) -> Reading:
    found = [example.found for example in pictures.examples(name)]
    path = work.path(f"{name}.pixels")
    with suppress(FileNotFoundError):
        os.unlink(path)  # of an earlier run that was killed here, perhaps of other pictures
    if len(found) * prod(recipe.shape) <= MOST_KEPT:
        with work_errors(), open(path, "wb") as stream:
            return read_all(found, recipe, pictures.reader, stream, tell)
    elsewhere = [one for one in found if isinstance(one, Source) and one.kind != "path"]
    if elsewhere:
        raise UsageError(
            f"`{printable(elsewhere[0].name)}` would be downloaded in every epoch: there are too many pictures to keep",
            "download them first",
        )
    return read_all(found, recipe, pictures.reader, None, tell)
