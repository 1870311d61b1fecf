"""Examples -> pixels to learn from and to validate with, read once and reported on before anything is trained."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from beitcli.errors import UsageError
from beitcli.inputs.sources import look
from beitcli.model.recipe import Recipe
from beitcli.records import Failure, Source, printable
from beitcli.training.examples import Example, Split
from beitcli.training.pixels import MOST_KEPT, DecodedPixels, KeptPixels, Pixels, read_all
from beitcli.training.reading import Reading, check_readings, location
from beitcli.training.workplace import Workplace, work_errors


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
    work: Workplace, split: Split, recipes: Mapping[str, Recipe], workers: int, most_errors: int
) -> dict[str, Any]:
    """Reads every picture once, keeps its pixels where there is room, and gives back what `part_of` needs.

    Raises UsageError as `check_readings` does.
    """
    work.start()
    parts = {"training": split.training, "validation": split.validation}
    readings = {name: _read(work, name, parts[name], recipes[name], workers) for name in parts}
    check_readings(split, readings["training"], readings["validation"], most_errors)
    return {name: list(reading.readable) for name, reading in readings.items()}


def part_of(work: Workplace, name: str, examples: Sequence[Example], readable: Sequence[int], recipe: Recipe) -> Part:
    """The pixels and classes of the pictures that could be read."""
    chosen = [examples[number] for number in readable]
    path = work.path(f"{name}.pixels")
    pixels: Pixels = (
        KeptPixels(path, recipe.shape)
        if os.path.exists(path)
        else DecodedPixels([location(example) for example in chosen], recipe)
    )
    return Part(pixels, tuple(example.target for example in chosen))


def _read(work: Workplace, name: str, examples: Sequence[Example], recipe: Recipe, workers: int) -> Reading:
    found = [example.found for example in examples]
    path = work.path(f"{name}.pixels")
    if len(found) * prod(recipe.shape) <= MOST_KEPT:
        with work_errors(), open(path, "wb") as stream:
            return read_all(found, recipe, workers, stream)
    elsewhere = [one for one in found if isinstance(one, Source) and one.kind != "path"]
    if elsewhere:
        raise UsageError(
            f"`{printable(elsewhere[0].name)}` would be downloaded in every epoch: there are too many pictures to keep",
            "download them first",
        )
    return read_all(found, recipe, workers, None)
