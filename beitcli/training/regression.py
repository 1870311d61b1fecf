"""Features and classes -> a linear layer: multinomial logistic regression, its strength chosen by validation."""

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

Array: TypeAlias = np.ndarray[Any, Any]
Fold: TypeAlias = tuple[Array, Array]
"""Numbers of examples: those to learn from, and those to validate with."""

STRENGTHS = tuple(np.logspace(4, -4, 10).tolist())
"""Weights of the L2 penalty beside the sum of the examples' losses, strongest first: scikit-learn's 1 / C."""

_MOST_STEPS = 1000


@dataclass(frozen=True, slots=True)
class Layer:
    """A linear layer: `weight` (classes, width) and `bias` (classes,), float32."""

    weight: Array
    bias: Array


@dataclass(frozen=True, slots=True)
class Validation:
    """What each strength came to on the examples of all folds, one by one: arrays of (strengths, examples).

    `places` are those, from 0, of the right classes, `losses` the negative logarithms of their probabilities.
    """

    places: Array
    losses: Array

    @property
    def right(self) -> Array:
        """For each strength the share of examples whose class comes first."""
        share: Array = (self.places == 0).mean(axis=1)
        return share

    @property
    def best(self) -> int:
        """The number of the strength that is right most often; of equals, the one whose probabilities are best.

        Where the classes are easy, many are equal, and the strongest would call everything unlikely.
        """
        equals = np.flatnonzero(self.right == self.right.max())
        return int(equals[self.losses[equals].mean(axis=1).argmin()])


def validated(features: Array, targets: Array, folds: Iterable[Fold]) -> Validation:
    """Learns and validates in each fold, by every strength.

    `features` is (examples, width) in float32, `targets` the numbers of their classes, all of which are to be learnt
    from in every fold.
    """
    places, losses = [], []
    for learnt, held_out in folds:
        scaler = StandardScaler().fit(features[learnt])
        path = _path(scaler.transform(features[learnt]), targets[learnt])
        seen = scaler.transform(features[held_out])
        scores = [_scores(model, seen) for model in path]
        right = (np.arange(len(held_out)), targets[held_out])
        places.append([_places(each, targets[held_out]) for each in scores])
        losses.append([-log_softmax(each, axis=1)[right] for each in scores])
    return Validation(np.concatenate(places, axis=1), np.concatenate(losses, axis=1))


def fitted(features: Array, targets: Array, strength: float) -> Layer:
    """The layer that all examples make, for features as they are: their standardisation is folded into it."""
    scaler = StandardScaler().fit(features)
    path = _path(scaler.transform(features), targets)  # where fits stop short, what came before them matters
    model = next(model for model, passed in zip(path, STRENGTHS, strict=False) if passed == strength)
    weight, bias = model.coef_.astype(np.float64), model.intercept_.astype(np.float64)
    if len(weight) == 1:  # of two classes, scikit-learn has the second one's odds
        weight, bias = np.concatenate((-weight, weight)) / 2, np.concatenate((-bias, bias)) / 2
    weight = weight / scaler.scale_
    return Layer(weight.astype(np.float32, "C"), (bias - weight @ scaler.mean_).astype(np.float32))


def _path(features: Array, targets: Array) -> Iterator[LogisticRegression]:
    """The model at each strength, every one begun where the one before has ended."""
    model = LogisticRegression(max_iter=_MOST_STEPS, warm_start=True)
    for strength in STRENGTHS:
        with (
            warnings.catch_warnings(),
            threadpool_limits(1, "blas"),
        ):  # whose threads spin: 60 times slower on busy cores
            warnings.simplefilter("ignore", ConvergenceWarning)  # validation judges what has not converged, too
            model.set_params(C=1 / strength).fit(features, targets)
        yield model


def _scores(model: LogisticRegression, features: Array) -> Array:
    scores: Array = model.decision_function(features)
    return np.stack((-scores, scores), axis=1) / 2 if scores.ndim == 1 else scores


def _places(scores: Array, targets: Array) -> Array:
    order = np.argsort(-scores, axis=1, kind="stable")
    places: Array = (order == targets[:, None]).argmax(axis=1)
    return places
