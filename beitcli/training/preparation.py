"""Examples -> pixels to learn from and to validate with, read once and reported on before anything is trained."""

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from beitcli.errors import UsageError
from beitcli.inputs.sources import look
from beitcli.model.recipe import Recipe
from beitcli.records import Failure, Source, printable, source_of
from beitcli.training.examples import Example, Split
from beitcli.training.pixels import MOST_KEPT, DecodedPixels, KeptPixels, Pixels, Reading, read_all
from beitcli.training.workplace import Workplace, work_errors

log = logging.getLogger(__name__)

_TOLD = 20
"""Names of broken or doubled pictures that are listed."""


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
            digest.update(f"{_location(example)!a} {example.target} {known}".encode())
    return digest.hexdigest()


def prepare(
    work: Workplace, split: Split, recipes: Mapping[str, Recipe], workers: int, most_errors: int
) -> dict[str, Any]:
    """Reads every picture once, keeps its pixels where there is room, and gives back what `part_of` needs.

    Raises UsageError where more than `most_errors` pictures cannot be read, or a class has none left to learn from.
    """
    with work_errors():
        os.makedirs(work.folder, exist_ok=True)
    parts = {"training": split.training, "validation": split.validation}
    readings = {name: _read(work, name, parts[name], recipes[name], workers) for name in parts}
    _report_failures([failure for reading in readings.values() for failure in reading.failures], most_errors)
    learnt = {split.training[number].target for number in readings["training"].readable}
    lost = [name for target, name in enumerate(split.classes) if target not in learnt]
    if lost:
        raise UsageError(f"no picture of the class `{printable(lost[0])}` can be read")
    if not readings["validation"].readable:
        raise UsageError("no picture to validate with can be read")
    _report_doubles(split, readings)
    return {name: list(reading.readable) for name, reading in readings.items()}


def part_of(work: Workplace, name: str, examples: Sequence[Example], readable: Sequence[int], recipe: Recipe) -> Part:
    """The pixels and classes of the pictures that could be read."""
    chosen = [examples[number] for number in readable]
    path = work.path(f"{name}.pixels")
    pixels: Pixels = (
        KeptPixels(path, recipe.shape)
        if os.path.exists(path)
        else DecodedPixels([_location(example) for example in chosen], recipe)
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


def _report_failures(failures: Sequence[Failure], most: int) -> None:
    for failure in failures[:_TOLD]:
        log.warning("left out: %s: %s: %s", failure.source.name, failure.code, failure.message)
    if len(failures) > _TOLD:
        log.warning("left out: %d more that cannot be read", len(failures) - _TOLD)
    if len(failures) > most:
        raise UsageError(
            f"{len(failures)} pictures cannot be read, and --max-errors allows {most}",
            f"repair or remove them, or leave them out: --max-errors {len(failures)}",
        )


def _report_doubles(split: Split, readings: Mapping[str, Reading]) -> None:
    """Says which pictures are both learnt from and validated with: they make the validation look better than it is."""
    known = dict(zip(readings["training"].digests, readings["training"].readable, strict=True))
    reading = readings["validation"]
    doubles = [
        (split.validation[number], split.training[known[digest]])
        for digest, number in zip(reading.digests, reading.readable, strict=True)
        if digest in known
    ]
    for validated, learnt in doubles[:_TOLD]:
        log.warning(
            "the same picture to validate with and to learn from: %s, %s", _location(validated), _location(learnt)
        )
    if len(doubles) > _TOLD:
        log.warning("%d pictures to validate with are to learn from, too", len(doubles))


def _location(example: Example) -> str:
    found = example.found
    return (found.source if isinstance(found, Failure) else source_of(found)).location
