"""Linear probe: features of labelled images -> a new linear layer, validated by images that it has not learnt from."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from beitcli.records import Embedding, Failure
from beitcli.training.data.checks import Identical, Reading, check_readings
from beitcli.training.data.examples import (
    DEFAULT_VAL_SHARE,
    Example,
    Split,
    check_can_hold_out,
    held_out,
    stratified_folds,
)
from beitcli.training.probe.regression import (
    STRENGTHS,
    Array,
    Fold,
    LinearLayer,
    Validation,
    cross_validate,
    fit_layer,
)
from beitcli.training.validation import ValidatedImage

log = logging.getLogger(__name__)

CROSS_VALIDATION_LIMIT = 5000
"""Distinct images below which cross-validation is used: a tenth of a few hundred is too few."""

FOLDS = 5


@dataclass(frozen=True, slots=True)
class ProbePlan:
    """Options of a probe; without `share`, the number of images decides between hold-out and cross-validation.

    Images that are held out are not learnt from, unless `refit`.
    """

    share: float | None
    max_errors: int
    seed: int
    refit: bool


@dataclass(frozen=True, slots=True)
class _Examples:
    """The readable images: features (examples, layers, width) in float32, class numbers, SHA-256."""

    features: Array
    targets: Array
    digests: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Probe:
    """A fitted layer, the accuracy at each strength, and what the layer has learnt from.

    `behind` is the index of the network's layer that gave its features, the best of those that `by_layer` has the
    accuracies of. `held_out` are the images that it has not learnt from. Where it has learnt from all, `validated` are
    the predictions of layers that were fitted without them, in so many `folds`.
    """

    layer: LinearLayer
    strength: float
    accuracies: tuple[float, ...]
    behind: int
    by_layer: tuple[float, ...]
    digests: tuple[bytes, ...]
    held_out: tuple[Example, ...]
    validated: tuple[ValidatedImage, ...]
    folds: int
    unvalidated: int
    identical: Identical


def fit_probe(
    plan: ProbePlan, split: Split, records: Sequence[Embedding | Failure], on_fit: Callable[[int, int], object]
) -> Probe:
    """Choose a penalty strength by validation, and fit the layer.

    Where the features are those behind every layer of the network, (layers, width), validation chooses one of them,
    too. `records` are those of the training images, then those of the validation images. `on_fit` is called with the
    number of fits done, from 0, and that of all. Raises UsageError where the images do not suffice.
    """
    training, validation = records[: len(split.training)], records[len(split.training) :]
    identical = check_readings(split, _reading(training), _reading(validation), plan.max_errors)
    every = [*split.training, *split.validation]
    read = [(example, one) for example, one in zip(every, records, strict=True) if isinstance(one, Embedding)]
    examples = _examples(read)
    count = len(_reading(training).readable)
    numbers = np.arange(len(examples.targets))
    folds = [(numbers[:count], numbers[count:])] if split.validation else _folds(examples, plan)
    unvalidated = _count_unvalidated(examples, folds, split.classes)
    validations, fits = _validations(examples, folds, on_fit)
    behind = max(range(len(validations)), key=lambda number: _quality(validations[number]))
    scores, features = validations[behind], examples.features[:, behind]
    strength = STRENGTHS[scores.best]
    is_refitted = plan.refit or len(folds) > 1
    learnt, left = (numbers, numbers[:0]) if is_refitted else folds[0]
    layer = fit_layer(features[learnt], examples.targets[learnt], strength)
    on_fit(fits, fits)
    return Probe(
        layer=layer,
        strength=strength,
        accuracies=tuple(scores.accuracy.tolist()),
        behind=behind,
        by_layer=tuple(float(each.accuracy.max()) for each in validations),
        digests=tuple(examples.digests[number] for number in learnt),
        held_out=tuple(read[number][0] for number in left),
        validated=tuple(_validated(read, folds, scores)) if is_refitted else (),
        folds=len(folds),
        unvalidated=unvalidated,
        identical=identical,
    )


def _validations(
    examples: _Examples, folds: Sequence[Fold], on_fit: Callable[[int, int], object]
) -> tuple[list[Validation], int]:
    """The validation of the features behind each layer, and the number of all fits, that of the result included."""
    layers = examples.features.shape[1]
    fits = layers * len(folds) + 1
    done = 0

    def reporting() -> Iterator[Fold]:
        nonlocal done
        for fold in folds:
            on_fit(done, fits)
            yield fold
            done += 1

    validations = [
        cross_validate(examples.features[:, number], examples.targets, reporting()) for number in range(layers)
    ]
    on_fit(fits - 1, fits)
    return validations, fits


def _quality(scores: Validation) -> tuple[float, float]:
    """Accuracy at the best strength; of equals, the lower loss is better."""
    return float(scores.accuracy.max()), -float(scores.losses[scores.best].mean())


def _reading(records: Sequence[Embedding | Failure]) -> Reading:
    embeddings = [(number, one) for number, one in enumerate(records) if isinstance(one, Embedding)]
    return Reading(
        tuple(number for number, _ in embeddings),
        tuple(one.identity.digest or b"" for _, one in embeddings),
        tuple(one for one in records if isinstance(one, Failure)),
    )


def _examples(read: Sequence[tuple[Example, Embedding]]) -> _Examples:
    return _Examples(
        np.stack([np.atleast_2d(one.features) for _, one in read]),
        np.array([example.target for example, _ in read]),
        tuple(one.identity.digest or b"" for _, one in read),
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
    """Warn of classes that have no validation image, and count them."""
    missing = np.setdiff1d(examples.targets, np.concatenate([examples.targets[part] for _, part in folds]))
    if missing.size:
        name = classes[missing[0]]
        log.warning("%d of %d classes have no validation image, such as %s", missing.size, len(classes), name)
    return missing.size


def _validated(
    read: Sequence[tuple[Example, Embedding]], folds: Sequence[Fold], scores: Validation
) -> Iterator[ValidatedImage]:
    """The predictions at the best strength, in the order of the images."""
    places = ((int(number), fold) for fold, (_, part) in enumerate(folds, start=1) for number in part)
    for (number, fold), place in sorted(zip(places, range(scores.ranks.shape[1]), strict=True)):
        example, one = read[number]
        yield ValidatedImage(
            path=one.source.name,
            true=example.target,
            predicted=int(scores.predicted[scores.best, place]),
            confidence=float(str(scores.confidences[scores.best, place])),  # the shortest decimal of the float32
            rank=int(scores.ranks[scores.best, place]),
            fold=fold if len(folds) > 1 else None,
        )
