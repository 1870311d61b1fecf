"""The layer is as good as scikit-learn's own search makes it, and says of raw features what it was fitted to say."""

import random
from collections import Counter

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from beitcli.training.examples import dealt, held_out
from beitcli.training.regression import STRENGTHS, Array, fitted, validated


def clouds(count: int, classes: int, width: int = 48, seed: int = 0) -> tuple[Array, Array]:
    """Overlapping clouds of points, of very different spreads and places along each axis; one axis is constant."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(1).standard_normal((classes, width)) * 0.55
    targets = np.arange(count) % classes
    features = (centres[targets] + rng.standard_normal((count, width))) * np.geomspace(0.01, 100, width) + 5
    features[:, 0] = 7
    return features.astype(np.float32), targets


def chosen(features: Array, targets: Array) -> float:
    parts = dealt(targets.tolist(), 5, 0)
    numbers = np.arange(len(targets))
    found = validated(features, targets, [(np.setdiff1d(numbers, part), np.array(part)) for part in parts])
    assert found.places.shape == found.losses.shape == (len(STRENGTHS), len(targets))
    assert found.right[found.best] == found.right.max()
    return STRENGTHS[found.best]


def test_it_is_as_good_as_the_search_of_scikit_learn() -> None:
    features, targets = clouds(800, 20)
    unseen, truth = clouds(4000, 20, seed=2)
    layer = fitted(features, targets, chosen(features, targets))
    ours = ((unseen @ layer.weight.T + layer.bias).argmax(axis=1) == truth).mean()
    scaler = StandardScaler().fit(features)
    with threadpool_limits(1):
        search = LogisticRegressionCV(max_iter=1000, l1_ratios=(0,), use_legacy_attributes=False, scoring="accuracy")
        search.fit(scaler.transform(features), targets)
    theirs = search.score(scaler.transform(unseen), truth)
    assert 0.5 < theirs < 0.95
    assert ours >= theirs - 0.01


@pytest.mark.parametrize("classes", [2, 3])
def test_the_folded_layer_has_the_probabilities_of_the_regression(classes: int) -> None:
    features, targets = clouds(60, classes)
    layer = fitted(features, targets, STRENGTHS[4])
    scaled = StandardScaler().fit_transform(features.astype(np.float64))
    model = LogisticRegression(C=1 / STRENGTHS[4], max_iter=5000, tol=1e-8).fit(scaled, targets)
    odds = np.exp(features.astype(np.float64) @ layer.weight.T + layer.bias)
    assert (layer.weight.dtype, layer.weight.shape, layer.bias.shape) == (np.float32, (classes, 48), (classes,))
    assert np.abs(odds / odds.sum(axis=1, keepdims=True) - model.predict_proba(scaled)).max() < 5e-3


def test_places_are_counted_from_the_best() -> None:
    features = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    targets = np.repeat(np.arange(3), 4)
    numbers = np.arange(12)
    found = validated(features, targets, [(numbers[numbers % 4 > 0], numbers[numbers % 4 == 0])])
    assert (found.places == 0).all()
    assert found.losses[found.best].mean() == found.losses.mean(axis=1).min() < 0.1
    wrong = np.roll(targets, 4)
    wrong[numbers % 4 > 0] = targets[numbers % 4 > 0]
    assert not validated(features, wrong, [(numbers[numbers % 4 > 0], numbers[numbers % 4 == 0])]).right.any()


def test_parts_share_out_every_class_but_those_of_one() -> None:
    targets = [0] * 11 + [1] * 2 + [2] + [3] * 6
    random.Random(3).shuffle(targets)
    parts = dealt(targets, 5, 0)
    assert sorted(number for part in parts for number in part) == [n for n, target in enumerate(targets) if target != 2]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for part in parts:
        assert all(count < targets.count(target) for target, count in Counter(targets[n] for n in part).items())
    assert parts == dealt(targets, 5, 0) != dealt(targets, 5, 1)
    assert 2 not in [targets[number] for number in held_out(targets, 0.5, 0)]
