"""What could be read of the examples, and what is said of the rest before anything is trained."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from beitcli.errors import UsageError
from beitcli.records import Failure, printable, source_of
from beitcli.training.examples import Example, Split

log = logging.getLogger(__name__)

_TOLD = 20
"""Names of broken or doubled pictures that are listed."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one pass over pictures found: the numbers of those that can be read, their SHA-256, and the failures."""

    readable: tuple[int, ...]
    digests: tuple[bytes, ...]
    failures: tuple[Failure, ...]


def check_readings(split: Split, training: Reading, validation: Reading, most_errors: int) -> int:
    """Lists the failures, and the pictures that are both learnt from and validated with, whose number it gives back.

    Raises UsageError where more than `most_errors` pictures cannot be read, or a class has none left to learn from.
    """
    _report_failures([*training.failures, *validation.failures], most_errors)
    learnt = {split.training[number].target for number in training.readable}
    lost = [name for target, name in enumerate(split.classes) if target not in learnt]
    if lost:
        raise UsageError(
            f"the class `{printable(lost[0])}` has no readable picture to learn from", "add pictures to it"
        )
    if split.validation and not validation.readable:
        raise UsageError("no picture to validate with can be read")
    return _report_doubles(split, training, validation)


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


def _report_doubles(split: Split, training: Reading, validation: Reading) -> int:
    """Says which pictures are both learnt from and validated with: they make the validation look better than it is."""
    known = dict(zip(training.digests, training.readable, strict=True))
    doubles = [
        (split.validation[number], split.training[known[digest]])
        for digest, number in zip(validation.digests, validation.readable, strict=True)
        if digest in known
    ]
    for validated, learnt in doubles[:_TOLD]:
        log.warning(
            "the same picture to validate with and to learn from: %s, %s", location(validated), location(learnt)
        )
    if len(doubles) > _TOLD:
        log.warning("%d pictures to validate with are to learn from, too", len(doubles))
    return len(doubles)


def location(example: Example) -> str:
    found = example.found
    return (found.source if isinstance(found, Failure) else source_of(found)).location
