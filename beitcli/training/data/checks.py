"""Result of reading the examples, and the checks and warnings before the training starts."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from beitcli.errors import UsageError
from beitcli.records import Failure, printable, source_of
from beitcli.training.data.examples import Example, Split

log = logging.getLogger(__name__)

_MAX_LISTED = 20
"""Number of failures and of identical images that are listed."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Result of one pass over the images: the numbers of the readable ones, their SHA-256, and the failures."""

    readable: tuple[int, ...]
    digests: tuple[bytes, ...]
    failures: tuple[Failure, ...]


@dataclass(frozen=True, slots=True)
class Identical:
    """Numbers of identical images: in training and validation (`overlap`), and under several labels (`ambiguous`)."""

    overlap: int
    ambiguous: int


def check_readings(split: Split, training: Reading, validation: Reading, max_errors: int) -> Identical:
    """List the failures, the overlap of training and validation images, and training images in several classes.

    Raises UsageError where more than `max_errors` images cannot be read, or a class has no training image left.
    """
    _report_failures([*training.failures, *validation.failures], max_errors)
    trained = {split.training[number].target for number in training.readable}
    lost = [name for target, name in enumerate(split.classes) if target not in trained]
    if lost:
        raise UsageError(f"the class `{printable(lost[0])}` has no readable image to train on", "add images to it")
    if split.validation and not validation.readable:
        raise UsageError("no validation image can be read")
    return Identical(_report_overlap(split, training, validation), _report_ambiguous(split, training))


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
    """Warn of images in both parts, which inflate the validation accuracy."""
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


def _report_ambiguous(split: Split, training: Reading) -> int:
    """Warn of images that stand, byte for byte, in several classes, and count them: at most one label is true."""
    pairs = list(_ambiguous(split, training))
    for first, other in pairs[:_MAX_LISTED]:
        log.warning("the same image in two classes: %s, %s", location(first), location(other))
    if len(pairs) > _MAX_LISTED:
        log.warning("%d images are in two classes", len(pairs))
    return len(pairs)


def _ambiguous(split: Split, training: Reading) -> Iterator[tuple[Example, Example]]:
    """Each image in several classes, once: its first example, and its first of another class."""
    seen: dict[bytes, Example | None] = {}
    for digest, number in zip(training.digests, training.readable, strict=True):
        example = split.training[number]
        first = seen.setdefault(digest, example)
        if first is not None and first.target != example.target:
            seen[digest] = None  # reported
            yield first, example


def location(example: Example) -> str:
    found = example.found
    return (found.source if isinstance(found, Failure) else source_of(found)).location
