"""The layer is as accurate as scikit-learn's own search, and gives the fitted probabilities for raw features."""

import random
from collections import Counter

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from beitcli.training.data.examples import held_out, stratified_folds
from beitcli.training.probe.regression import STRENGTHS, Array, cross_validate, fit_layer


def clusters(count: int, classes: int, width: int = 48, seed: int = 0) -> tuple[Array, Array]:
    """Overlapping clusters, of very different spread and location along each axis; one axis is constant."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(1).standard_normal((classes, width)) * 0.55
    targets = np.arange(count) % classes
    features = (centres[targets] + rng.standard_normal((count, width))) * np.geomspace(0.01, 100, width) + 5
    features[:, 0] = 7
    return features.astype(np.float32), targets


def best_strength(features: Array, targets: Array) -> float:
    folds = stratified_folds(targets.tolist(), 5, 0)
    numbers = np.arange(len(targets))
    found = cross_validate(features, targets, [(np.setdiff1d(numbers, part), np.array(part)) for part in folds])
    assert found.ranks.shape == found.losses.shape == (len(STRENGTHS), len(targets))
    assert found.accuracy[found.best] == found.accuracy.max()
    return STRENGTHS[found.best]


def test_the_accuracy_is_that_of_the_search_of_scikit_learn() -> None:
    features, targets = clusters(800, 20)
    unseen, labels = clusters(4000, 20, seed=2)
    layer = fit_layer(features, targets, best_strength(features, targets))
    ours = ((unseen @ layer.weight.T + layer.bias).argmax(axis=1) == labels).mean()
    scaler = StandardScaler().fit(features)
    with threadpool_limits(1):
        search = LogisticRegressionCV(max_iter=1000, l1_ratios=(0,), use_legacy_attributes=False, scoring="accuracy")
        search.fit(scaler.transform(features), targets)
    theirs = search.score(scaler.transform(unseen), labels)
    assert 0.5 < theirs < 0.95
    assert ours >= theirs - 0.01


@pytest.mark.parametrize("classes", [2, 3])
def test_the_folded_layer_has_the_probabilities_of_the_regression(classes: int) -> None:
    features, targets = clusters(60, classes)
    layer = fit_layer(features, targets, STRENGTHS[4])
    scaled = StandardScaler().fit_transform(features.astype(np.float64))
    model = LogisticRegression(C=1 / STRENGTHS[4], max_iter=5000, tol=1e-8).fit(scaled, targets)
    odds = np.exp(features.astype(np.float64) @ layer.weight.T + layer.bias)
    assert (layer.weight.dtype, layer.weight.shape, layer.bias.shape) == (np.float32, (classes, 48), (classes,))
    assert np.abs(odds / odds.sum(axis=1, keepdims=True) - model.predict_proba(scaled)).max() < 5e-3


def test_ranks_are_counted_from_the_best() -> None:
    features = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    targets = np.repeat(np.arange(3), 4)
    numbers = np.arange(12)
    found = cross_validate(features, targets, [(numbers[numbers % 4 > 0], numbers[numbers % 4 == 0])])
    assert (found.ranks == 0).all()
    assert found.losses[found.best].mean() == found.losses.mean(axis=1).min() < 0.1
    wrong = np.roll(targets, 4)
    wrong[numbers % 4 > 0] = targets[numbers % 4 > 0]
    assert not cross_validate(features, wrong, [(numbers[numbers % 4 > 0], numbers[numbers % 4 == 0])]).accuracy.any()


def test_folds_are_stratified_and_leave_out_classes_of_one() -> None:
    targets = [0] * 11 + [1] * 2 + [2] + [3] * 6
    random.Random(3).shuffle(targets)
    folds = stratified_folds(targets, 5, 0)
    assert sorted(number for part in folds for number in part) == [n for n, target in enumerate(targets) if target != 2]
    assert max(map(len, folds)) - min(map(len, folds)) <= 1
    for part in folds:
        assert all(count < targets.count(target) for target, count in Counter(targets[n] for n in part).items())
    assert folds == stratified_folds(targets, 5, 0) != stratified_folds(targets, 5, 1)
    assert 2 not in [targets[number] for number in held_out(targets, 0.5, 0)]
