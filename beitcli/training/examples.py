"""Labelled pictures -> classes and numbered examples, some of them held out for validation."""

import logging
import os
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, cycle

from beitcli.errors import UsageError
from beitcli.inputs.labelled import Labelled, by_folder, classes_without_pictures
from beitcli.inputs.sources import Walk
from beitcli.records import Found, Skipped, printable

log = logging.getLogger(__name__)

SHARE = 0.1
"""Of each class, what is held out unless it is said."""


@dataclass(frozen=True, slots=True)
class Example:
    """A picture and the number of its class."""

    found: Found
    target: int


@dataclass(frozen=True, slots=True)
class Split:
    """The names of the classes in order of their numbers, and the examples to learn from and to validate with."""

    classes: tuple[str, ...]
    training: tuple[Example, ...]
    validation: tuple[Example, ...]


def in_folders(folder: str, walk: Walk) -> list[Labelled]:
    """The pictures of a folder of class folders. Raises UsageError where they make no classes, or one has none."""
    skipped = Skipped()
    labelled = by_folder(folder, walk, skipped)
    passed_by = skipped.text()
    empty = classes_without_pictures(folder, labelled, walk)
    if empty:
        raise UsageError(
            f"the class folder `{printable(os.path.join(folder, empty[0]))}` holds no picture",
            "put pictures into it, or delete it"
            + (f"; skipped: {passed_by} (--follow takes links)" if skipped else ""),
        )
    if skipped:
        log.info("skipped in `%s`: %s", printable(folder), passed_by)
    return labelled


def split(labelled: Sequence[Labelled], validation: Sequence[Labelled] | None, share: float, seed: int) -> Split:
    """The examples of each class: all of them and those of `validation`, or without that a share held out.

    Of every class at least one picture is held out, and at least one learnt from. The same seed holds out the same.
    Raises UsageError for fewer than two classes, for names that differ only in case or blanks, and for a class in
    `validation` that there is nothing to learn of.
    """
    classes = tuple(sorted({one.label for one in labelled}))
    _check_classes(classes)
    number = {name: index for index, name in enumerate(classes)}
    if validation is None:
        examples = [Example(one.found, number[one.label]) for one in labelled]
        return Split(classes, *_held_out(examples, classes, share, seed))
    unknown = sorted({one.label for one in validation} - number.keys())
    if unknown:
        raise UsageError(
            f"the validation pictures have a class `{printable(unknown[0])}`, of which there is none to learn from",
            f"the classes are {', '.join(map(printable, classes[:20]))}",
        )
    training, held_out = (
        tuple(Example(one.found, number[one.label]) for one in part) for part in (labelled, validation)
    )
    return Split(classes, training, held_out)


def check_several(targets: Sequence[int]) -> None:
    """Raises UsageError where no class has two examples, of which one could be held out."""
    if len(set(targets)) == len(targets):
        raise UsageError("each class has one picture: none can be validated with", "add pictures, or give --val")


def held_out(targets: Sequence[int], share: float, seed: int) -> list[int]:
    """The numbers of the examples that are held out: of every class a share, at least one, but never all.

    `targets` are the examples' classes. Of a class with one example, nothing is held out.
    """
    taken: list[int] = []
    for target, indices in _by_class(targets).items():
        count = min(len(indices) - 1, max(1, round(share * len(indices))))
        taken.extend(random.Random(f"{seed} {target}").sample(indices, count))  # noqa: S311  # nothing secret
    return sorted(taken)


def dealt(targets: Sequence[int], parts: int, seed: int) -> list[list[int]]:
    """The numbers of the examples in so many parts, each class spread evenly; one alone in its class is left out."""
    hands: list[list[int]] = [[] for _ in range(parts)]
    several = {target: indices for target, indices in _by_class(targets).items() if len(indices) > 1}
    shuffled = chain.from_iterable(
        random.Random(f"{seed} {target}").sample(indices, len(indices))  # noqa: S311  # nothing secret
        for target, indices in several.items()
    )
    for hand, index in zip(cycle(hands), shuffled, strict=False):
        hand.append(index)
    return hands


def _by_class(targets: Sequence[int]) -> dict[int, list[int]]:
    of_class = defaultdict(list)
    for index, target in enumerate(targets):
        of_class[target].append(index)
    return of_class


def _held_out(
    examples: Sequence[Example], classes: tuple[str, ...], share: float, seed: int
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    targets = [example.target for example in examples]
    lone = [target for target, count in Counter(targets).items() if count < 2]
    if lone:
        raise UsageError(
            f"the class `{printable(classes[lone[0]])}` has one picture: none can be held out",
            "add pictures, or give validation pictures by --val",
        )
    taken = held_out(targets, share, seed)
    kept = set(range(len(examples))) - set(taken)
    return tuple(examples[index] for index in sorted(kept)), tuple(examples[index] for index in taken)


def _check_classes(classes: tuple[str, ...]) -> None:
    if len(classes) < 2:
        found = f"the one class `{printable(classes[0])}`" if classes else "no class"
        raise UsageError(f"{found} is nothing to tell apart", "a classifier needs two classes or more")
    spelled: dict[str, str] = {}
    for name in classes:
        other = spelled.setdefault(name.strip().casefold(), name)
        if other != name:
            raise UsageError(
                f"the classes `{printable(other)}` and `{printable(name)}` differ only in case or blanks",
                "give one of them another name, or move their pictures together",
            )
