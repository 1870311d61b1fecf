"""Labelled images -> classes and numbered examples, some of them held out for validation."""

import logging
import os
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, cycle

from beitcli.errors import UsageError
from beitcli.inputs.labelled import Labelled, by_folder, classes_without_images
from beitcli.inputs.sources import Walk
from beitcli.records import Found, Skipped, composed, printable

log = logging.getLogger(__name__)

DEFAULT_VAL_SHARE = 0.1
"""Share of each class that is held out by default."""


@dataclass(frozen=True, slots=True)
class Example:
    """A labelled image; `target` is the number of its class."""

    found: Found
    target: int


@dataclass(frozen=True, slots=True)
class Split:
    """The names of the classes in order of their numbers, the training and the validation examples."""

    classes: tuple[str, ...]
    training: tuple[Example, ...]
    validation: tuple[Example, ...]


def in_folders(folder: str, walk: Walk) -> list[Labelled]:
    """The labelled images of a folder of class folders. Raises UsageError for no class, or an empty one."""
    skipped = Skipped()
    labelled = by_folder(folder, walk, skipped)
    report = skipped.text()
    empty = classes_without_images(folder, labelled, walk)
    if empty:
        raise UsageError(
            f"the class folder `{printable(os.path.join(folder, empty[0]))}` holds no image",
            "put images into it, or delete it"
            + (f"; skipped: {report} (`follow=True` takes links)" if skipped else ""),
        )
    if skipped:
        log.info("skipped in `%s`: %s", printable(folder), report)
    return labelled


def split(labelled: Sequence[Labelled], validation: Sequence[Labelled] | None, share: float, seed: int) -> Split:
    """The split into training and validation examples; without `validation`, a share of each class is held out.

    Of every class at least one image is held out, and at least one kept for training. The same seed gives the same
    split. Raises UsageError for fewer than two classes, for names that differ only in case, blanks or Unicode form,
    and for a class in `validation` without training images.
    """
    _check_classes(tuple(sorted({one.label for one in labelled})))
    classes = tuple(sorted({composed(one.label) for one in labelled}))
    number = {name: index for index, name in enumerate(classes)}
    if validation is None:
        examples = [Example(one.found, number[composed(one.label)]) for one in labelled]
        return Split(classes, *_split_examples(examples, classes, share, seed))
    unknown = sorted({composed(one.label) for one in validation} - number.keys())
    if unknown:
        raise UsageError(
            f"the validation images have a class `{printable(unknown[0])}`, which has no training image",
            f"the classes are {', '.join(map(printable, classes[:20]))}",
        )
    training, held_out = (
        tuple(Example(one.found, number[composed(one.label)]) for one in part) for part in (labelled, validation)
    )
    return Split(classes, training, held_out)


def check_can_hold_out(targets: Sequence[int]) -> None:
    """Raise UsageError where no class has two examples, identical ones counted once, so that none can be held out."""
    if len(set(targets)) == len(targets):
        raise UsageError("no class has two different images: none can be held out", "add images, or give `val=`")


def held_out(targets: Sequence[int], share: float, seed: int) -> list[int]:
    """Stratified hold-out: the numbers of a share of each class's examples, at least one, never all.

    `targets` are the examples' classes. The example of a class with only one is not held out.
    """
    chosen: list[int] = []
    for target, indices in _by_class(targets).items():
        count = min(len(indices) - 1, max(1, round(share * len(indices))))
        chosen.extend(random.Random(f"{seed} {target}").sample(indices, count))  # noqa: S311  # nothing secret
    return sorted(chosen)


def stratified_folds(targets: Sequence[int], folds: int, seed: int) -> list[list[int]]:
    """The numbers of the examples in so many folds, each class spread evenly; classes of one example are left out."""
    result: list[list[int]] = [[] for _ in range(folds)]
    several = {target: indices for target, indices in _by_class(targets).items() if len(indices) > 1}
    shuffled = chain.from_iterable(
        random.Random(f"{seed} {target}").sample(indices, len(indices))  # noqa: S311  # nothing secret
        for target, indices in several.items()
    )
    for fold, index in zip(cycle(result), shuffled, strict=False):
        fold.append(index)
    return result


def _by_class(targets: Sequence[int]) -> dict[int, list[int]]:
    of_class = defaultdict(list)
    for index, target in enumerate(targets):
        of_class[target].append(index)
    return of_class


def _split_examples(
    examples: Sequence[Example], classes: tuple[str, ...], share: float, seed: int
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    targets = [example.target for example in examples]
    single = [target for target, count in Counter(targets).items() if count < 2]
    if single:
        raise UsageError(
            f"the class `{printable(classes[single[0]])}` has one image: none can be held out",
            "add images, or give validation images by `val=`",
        )
    chosen = held_out(targets, share, seed)
    kept = set(range(len(examples))) - set(chosen)
    return tuple(examples[index] for index in sorted(kept)), tuple(examples[index] for index in chosen)


def _check_classes(classes: tuple[str, ...]) -> None:
    if len(classes) < 2:
        found = f"the one class `{printable(classes[0])}`" if classes else "no class"
        raise UsageError(f"the images have {found}", "a classifier needs two classes or more")
    spellings: dict[str, str] = {}
    for name in classes:
        other = spellings.setdefault(composed(name).strip().casefold(), name)
        if other != name:
            difference = (
                "their Unicode form (a Mac's and a PC's)" if composed(other) == composed(name) else "case or blanks"
            )
            raise UsageError(
                f"the classes `{printable(other)}` and `{printable(name)}` differ only in {difference}",
                "give one of them another name, or move their images together",
            )
