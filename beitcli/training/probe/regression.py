"""Features and classes -> a linear layer: multinomial logistic regression, its penalty chosen by validation."""

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
"""Numbers of the training and of the validation examples."""

STRENGTHS = tuple(np.logspace(4, -4, 10).tolist())
"""Weights of the L2 penalty against the summed loss, strongest first: scikit-learn's 1 / C."""

_MAX_ITERATIONS = 1000


@dataclass(frozen=True, slots=True)
class LinearLayer:
    """A linear layer: `weight` (classes, width) and `bias` (classes,), float32."""

    weight: Array
    bias: Array


@dataclass(frozen=True, slots=True)
class Validation:
    """Validation results for each strength on the examples of all folds: arrays of (strengths, examples).

    `ranks` are the ranks, from 0, of the true classes, `losses` their negative log-likelihoods, `predicted` the best
    classes and `confidences` their probabilities.
    """

    ranks: Array
    losses: Array
    predicted: Array
    confidences: Array

    @property
    def accuracy(self) -> Array:
        """Top-1 accuracy for each strength."""
        accuracy: Array = (self.ranks == 0).mean(axis=1)
        return accuracy

    @property
    def best(self) -> int:
        """The index of the strength with the highest accuracy; of equals, the one with the lowest mean loss.

        For easy classes many are equal, and the strongest penalty makes all probabilities small.
        """
        accuracy = self.accuracy
        equals = np.flatnonzero(accuracy == accuracy.max())
        return int(equals[self.losses[equals].mean(axis=1).argmin()])


def cross_validate(features: Array, targets: Array, folds: Iterable[Fold]) -> Validation:
    """Fit and validate every strength in each fold.

    `features` is (examples, width) in float32, `targets` the class numbers, each of which must be among the training
    examples of every fold.
    """
    parts = []
    for training, held_out in folds:
        scaler = StandardScaler().fit(features[training])
        path = _regularisation_path(scaler.transform(features[training]), targets[training])
        inputs = scaler.transform(features[held_out])
        results = [_results(_scores(model, inputs), targets[held_out]) for model in path]
        parts.append([np.stack(values) for values in zip(*results, strict=True)])
    return Validation(*(np.concatenate(values, axis=1) for values in zip(*parts, strict=True)))


def fit_layer(features: Array, targets: Array, strength: float) -> LinearLayer:
    """The layer fitted to all examples, for raw features: their standardisation is folded into it."""
    scaler = StandardScaler().fit(features)
    path = _regularisation_path(scaler.transform(features), targets)  # unconverged fits depend on those before
    model = next(model for model, each in zip(path, STRENGTHS, strict=False) if each == strength)
    weight, bias = model.coef_.astype(np.float64), model.intercept_.astype(np.float64)
    if len(weight) == 1:  # for two classes, scikit-learn gives the second one's log-odds
        weight, bias = np.concatenate((-weight, weight)) / 2, np.concatenate((-bias, bias)) / 2
    weight = weight / scaler.scale_
    return LinearLayer(weight.astype(np.float32, "C"), (bias - weight @ scaler.mean_).astype(np.float32))


def _regularisation_path(features: Array, targets: Array) -> Iterator[LogisticRegression]:
    """The regularisation path: the model at each strength, warm-started from the one before."""
    model = LogisticRegression(max_iter=_MAX_ITERATIONS, warm_start=True)
    for strength in STRENGTHS:
        with (
            warnings.catch_warnings(),
            threadpool_limits(1, "blas"),
        ):  # spinning BLAS threads are 60 times slower on busy cores
            warnings.simplefilter("ignore", ConvergenceWarning)  # validation also judges models that have not converged
            model.set_params(C=1 / strength).fit(features, targets)
        yield model


def _scores(model: LogisticRegression, features: Array) -> Array:
    scores: Array = model.decision_function(features)
    return np.stack((-scores, scores), axis=1) / 2 if scores.ndim == 1 else scores


def _results(scores: Array, targets: Array) -> tuple[Array, Array, Array, Array]:
    """Ranks, losses, predicted classes and confidences of the examples at one strength, as in `Validation`."""
    logarithms, numbers = log_softmax(scores, axis=1), np.arange(len(targets))
    predicted = scores.argmax(axis=1)
    return (
        _ranks(scores, targets),
        -logarithms[numbers, targets],
        predicted,
        np.exp(logarithms[numbers, predicted]).astype(np.float32),
    )


def _ranks(scores: Array, targets: Array) -> Array:
    order = np.argsort(-scores, axis=1, kind="stable")
    ranks: Array = (order == targets[:, None]).argmax(axis=1)
    return ranks
