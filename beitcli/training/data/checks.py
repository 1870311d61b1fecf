"""Result of reading the examples, and the checks and warnings before the training starts."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from beitcli.errors import UsageError
from beitcli.records import Failure, printable, source_of
from beitcli.training.data.examples import Example, Split

log = logging.getLogger(__name__)

_MAX_LISTED = 20
"""Number of failures and of overlapping images that are listed."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Result of one pass over the images: the numbers of the readable ones, their SHA-256, and the failures."""

    readable: tuple[int, ...]
    digests: tuple[bytes, ...]
    failures: tuple[Failure, ...]


def check_readings(split: Split, training: Reading, validation: Reading, max_errors: int) -> int:
    """Lists the failures and the overlap of training and validation images; the result is the size of the overlap.

    Raises UsageError where more than `max_errors` images cannot be read, or a class has no training image left.
    """
    _report_failures([*training.failures, *validation.failures], max_errors)
    trained = {split.training[number].target for number in training.readable}
    lost = [name for target, name in enumerate(split.classes) if target not in trained]
    if lost:
        raise UsageError(f"the class `{printable(lost[0])}` has no readable image to train on", "add images to it")
    if split.validation and not validation.readable:
        raise UsageError("no validation image can be read")
    return _report_overlap(split, training, validation)


def _report_failures(failures: Sequence[Failure], max_errors: int) -> None:
    for failure in failures[:_MAX_LISTED]:
        log.warning("left out: %s: %s: %s", failure.source.name, failure.code, failure.message)
    if len(failures) > _MAX_LISTED:
        log.warning("left out: %d more that cannot be read", len(failures) - _MAX_LISTED)
    if len(failures) > max_errors:
        raise UsageError(
            f"{len(failures)} images cannot be read, and `max_errors=` allows {max_errors}",
            f"repair or remove them, or leave them out: `max_errors={len(failures)}`",
        )


def _report_overlap(split: Split, training: Reading, validation: Reading) -> int:
    """Warns of images in both parts, which inflate the validation accuracy."""
    known = dict(zip(training.digests, training.readable, strict=True))
    overlap = [
        (split.validation[number], split.training[known[digest]])
        for digest, number in zip(validation.digests, validation.readable, strict=True)
        if digest in known
    ]
    for held_out, trained in overlap[:_MAX_LISTED]:
        log.warning("the same image in validation and training: %s, %s", location(held_out), location(trained))
    if len(overlap) > _MAX_LISTED:
        log.warning("%d validation images are training images, too", len(overlap))
    return len(overlap)


def location(example: Example) -> str:
    found = example.found
    return (found.source if isinstance(found, Failure) else source_of(found)).location
