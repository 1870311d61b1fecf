"""Linear probe: features of labelled images -> an ordinary checkpoint folder with a new linear layer."""

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from beitcli.model.preprocessing import Preprocessing
from beitcli.records import Embedding, Failure
from beitcli.training.data.checks import Reading, check_readings
from beitcli.training.data.examples import (
    DEFAULT_VAL_SHARE,
    Example,
    Split,
    check_can_hold_out,
    held_out,
    stratified_folds,
)
from beitcli.training.model_card import Facts, model_card
from beitcli.training.probe.checkpoint import PooledCheckpoint, save
from beitcli.training.probe.regression import STRENGTHS, Array, Fold, cross_validate, fit_layer
from beitcli.training.work_dir import WorkDir

log = logging.getLogger(__name__)

CROSS_VALIDATION_LIMIT = 5000
"""Distinct images below which cross-validation is used: a tenth of a few hundred is too few."""

FOLDS = 5

_STATES = {"mean": "the mean of its final patch states", "cls": "its first final state"}


@dataclass(frozen=True, slots=True)
class ProbePlan:
    """Options of a probe; without `share`, the number of images decides between hold-out and cross-validation.

    `started` is the start by the monotonic clock.
    """

    share: float | None
    max_errors: int
    seed: int
    command: str
    started: float


@dataclass(frozen=True, slots=True)
class _Examples:
    """The readable images: features (examples, width) in float32, class numbers, SHA-256."""

    features: Array
    targets: Array
    digests: tuple[bytes, ...]


def train_probe(
    plan: ProbePlan,
    split: Split,
    records: Sequence[Embedding | Failure],
    checkpoint: PooledCheckpoint,
    preprocessing: Preprocessing,
    work: WorkDir,
    on_fit: Callable[[int, int], object],
) -> tuple[Facts, float]:
    """Chooses a penalty strength, fits, and writes the folder; returns the content of its card, and the strength.

    `records` are those of the training images, then those of the validation images. `on_fit` is called with the number
    of fits done, from 0, and that of all. Raises UsageError where the images do not suffice.
    """
    training, validation = records[: len(split.training)], records[len(split.training) :]
    overlap = check_readings(split, _reading(training), _reading(validation), plan.max_errors)
    examples = _examples([*split.training, *split.validation], records)
    count = len(_reading(training).readable)
    numbers = np.arange(len(examples.targets))
    folds = [(numbers[:count], numbers[count:])] if split.validation else _folds(examples, plan)
    unvalidated = _count_unvalidated(examples, folds, split.classes)
    scores = cross_validate(examples.features, examples.targets, _reporting(folds, on_fit))
    strength = STRENGTHS[scores.best]
    on_fit(len(folds), len(folds) + 1)
    layer = fit_layer(examples.features, examples.targets, strength)
    on_fit(len(folds) + 1, len(folds) + 1)
    how = "five-fold cross-validation" if len(folds) > 1 else "by a layer trained on the others"
    without = f", without any of {unvalidated} of the {len(split.classes)} classes" if unvalidated else ""
    known = f", {overlap} of them training images, too" if overlap else ""
    facts = Facts(
        command=plan.command,
        description=_description(checkpoint, strength, scores.accuracy),
        classes=split.classes,
        trained_on=len(examples.targets),
        ranks=scores.ranks[scores.best].tolist(),
        held_out=f"that were held out ({how}{known}{without}; the final model is trained on all)",
        seed=plan.seed,
        seconds=time.monotonic() - plan.started,
    )
    folder = work.path("model")
    save(checkpoint, layer, split.classes, preprocessing, folder)
    work.finish(folder, model_card(os.path.basename(work.out), facts))
    return facts, strength


def _reporting(folds: Sequence[Fold], on_fit: Callable[[int, int], object]) -> Iterator[Fold]:
    for number, fold in enumerate(folds):
        on_fit(number, len(folds) + 1)
        yield fold


def _reading(records: Sequence[Embedding | Failure]) -> Reading:
    embeddings = [(number, one) for number, one in enumerate(records) if isinstance(one, Embedding)]
    return Reading(
        tuple(number for number, _ in embeddings),
        tuple(one.identity.digest or b"" for _, one in embeddings),
        tuple(one for one in records if isinstance(one, Failure)),
    )


def _examples(examples: Sequence[Example], records: Sequence[Embedding | Failure]) -> _Examples:
    read = [(one, example) for one, example in zip(records, examples, strict=True) if isinstance(one, Embedding)]
    return _Examples(
        np.stack([one.features for one, _ in read]),
        np.array([example.target for _, example in read]),
        tuple(one.identity.digest or b"" for one, _ in read),
    )


def _folds(examples: _Examples, plan: ProbePlan) -> list[Fold]:
    """Training and validation examples of each fold; identical images of a class stay in one part.

    A class with one image is not validated. Raises UsageError where no class has two.
    """
    number: dict[tuple[bytes, int], int] = {}
    images = zip(examples.digests, examples.targets.tolist(), strict=True)
    image = np.array([number.setdefault(each, len(number)) for each in images])
    targets = [target for _, target in number]
    check_can_hold_out(targets)
    if plan.share is None and len(number) < CROSS_VALIDATION_LIMIT:
        parts = stratified_folds(targets, FOLDS, plan.seed)
    else:
        parts = [held_out(targets, plan.share or DEFAULT_VAL_SHARE, plan.seed)]
    masks = (np.isin(image, part) for part in parts if part)
    return [(np.flatnonzero(~mask), np.flatnonzero(mask)) for mask in masks]


def _count_unvalidated(examples: _Examples, folds: Sequence[Fold], classes: Sequence[str]) -> int:
    """Warns of classes that have no validation image, and counts them."""
    missing = np.setdiff1d(examples.targets, np.concatenate([examples.targets[part] for _, part in folds]))
    if missing.size:
        name = classes[missing[0]]
        log.warning("%d of %d classes have no validation image, such as %s", missing.size, len(classes), name)
    return missing.size


def _description(checkpoint: PooledCheckpoint, strength: float, accuracies: Array) -> str:
    """Description of the training, with the accuracy at each strength."""
    rows = [f"| {each:.3g} | {100 * accuracy:.2f} % |" for each, accuracy in zip(STRENGTHS, accuracies, strict=True)]
    head = (
        f"A linear probe: `{checkpoint.name}`, frozen, with a new linear layer on {_STATES[checkpoint.pool]}: "
        "scikit-learn's multinomial logistic regression on standardised features, their standardisation folded in, "
        f"with an L2 penalty of strength {strength:.3g}, which was the best in validation:"
    )
    return "\n".join([head, "", "| strength | top-1 |", "|---|---|", *rows])
