"""Metrics compared with scikit-learn's and with published values."""

import csv
import io

import numpy as np
import pytest
from PIL import Image
from sklearn.calibration import calibration_curve
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, top_k_accuracy_score

from beitcli.evaluation.metrics import BINS, LabelledPrediction, Share, measure
from beitcli.evaluation.plots import NAMES, confusion_plot, confusion_table, reliability_plot
from beitcli.records import Source

CLASSES = 8
LABELS = tuple(f"class {number}, $x^{number}" for number in range(CLASSES))


@pytest.fixture(scope="module")
def scores() -> np.ndarray:
    return np.random.default_rng(5).dirichlet(np.ones(CLASSES), 400)


@pytest.fixture(scope="module")
def true(scores: np.ndarray) -> np.ndarray:
    """Half of the labels as predicted, half random; never the last class."""
    random = np.random.default_rng(6)
    chance = random.integers(0, CLASSES - 1, len(scores))
    true = np.where(random.random(len(scores)) < 0.5, scores.argmax(1), chance)
    return np.where(true == CLASSES - 1, 0, true)


def predictions(true: np.ndarray, scores: np.ndarray) -> list[LabelledPrediction]:
    rows = zip(true, scores, strict=True)
    return [
        LabelledPrediction(Source(f"{number}.jpg"), int(true), tuple(map(int, (-row).argsort()[:5])), float(row.max()))
        for number, (true, row) in enumerate(rows)
    ]


def known(share: Share | None) -> Share:
    assert share is not None
    return share


def test_metrics_are_those_of_scikit_learn(true: np.ndarray, scores: np.ndarray) -> None:
    figures, best = measure(predictions(true, scores), LABELS), scores.argmax(1)
    assert figures.images == 400
    everything = range(CLASSES)
    assert known(figures.top1).value == pytest.approx(top_k_accuracy_score(true, scores, k=1, labels=everything))
    assert known(figures.top5).value == pytest.approx(top_k_accuracy_score(true, scores, k=5, labels=everything))
    matrix = confusion_matrix(true, best)
    assert {(each.true, each.predicted): each.images for each in figures.confusion} == {
        (row, column): matrix[row, column] for row, column in np.argwhere(matrix).tolist()
    }
    kept = np.isin(best, true)  # sklearn warns of predictions of a class that no image has
    recalls = [each.recall.value for each in figures.classes if each.recall]
    assert recalls == pytest.approx(np.diag(matrix)[:-1] / matrix.sum(1)[:-1])
    assert known(figures.macro).value == pytest.approx(np.mean(recalls))
    alone = measure([each for each, keep in zip(predictions(true, scores), kept, strict=True) if keep], LABELS)
    assert known(alone.macro).value == pytest.approx(balanced_accuracy_score(true[kept], best[kept]))


def test_the_calibration_error_is_that_of_the_curve(true: np.ndarray, scores: np.ndarray) -> None:
    figures = measure(predictions(true, scores), LABELS)
    correct, confidence = scores.argmax(1) == true, scores.max(1)
    accuracy, mean = calibration_curve(correct, confidence, n_bins=BINS)
    counts, _ = np.histogram(confidence, BINS, (0, 1))
    assert [each.images for each in figures.bins] == counts.tolist()
    assert [each.accuracy for each in figures.bins if each.images] == pytest.approx(accuracy.tolist())
    assert figures.ece == pytest.approx((np.abs(accuracy - mean) * counts[counts > 0]).sum() / 400)
    assert figures.ece is not None and figures.ece > 0.02


def test_metrics_that_divide_by_zero_are_none() -> None:
    figures = measure(
        [LabelledPrediction(Source("a"), 0, (1, 0), 0.9), LabelledPrediction(Source("b"), 2, (2, 0), 0.8)], LABELS
    )
    assert [(each.index, each.images, each.precision, each.f1) for each in figures.classes] == [
        (0, 1, None, 0.0),
        (1, 0, 0.0, 0.0),
        (2, 1, 1.0, 1.0),
    ]
    assert [each.recall and each.recall.value for each in figures.classes] == [0.0, None, 1.0]
    assert (known(figures.macro).value, known(figures.top5).value) == (0.5, 1.0)


def test_intervals_are_those_of_wilson() -> None:
    """Eight of ten and none of ten, as in published tables; the mean of one class has the interval of that class."""
    eight = [LabelledPrediction(Source("a"), 0, (0 if number < 8 else 1,), 0.5) for number in range(10)]
    figures = measure(eight, LABELS)
    top1, macro = known(figures.top1), known(figures.macro)
    assert (top1.low, top1.high) == pytest.approx((0.4902, 0.9433), abs=5e-5)
    assert (macro.low, macro.high) == pytest.approx((top1.low, top1.high))
    none = known(measure([LabelledPrediction(Source("a"), 0, (1,), 0.5)] * 10, LABELS).top1)
    assert (none.low, none.high) == pytest.approx((0, 0.2775), abs=5e-5)


def test_the_interval_of_a_mean_narrows_with_its_classes() -> None:
    widths = []
    for count in (1, 4):
        images = [
            LabelledPrediction(Source("a"), each % count, ((each // count) % 2 * 7,), 0.5)
            for each in range(100 * count)
        ]
        macro = known(measure(images, LABELS).macro)
        widths.append(macro.high - macro.low)
    assert widths[1] < widths[0]


def test_mistakes_are_the_most_confident_first(true: np.ndarray, scores: np.ndarray) -> None:
    figures = measure(predictions(true, scores), LABELS)
    wrong = np.flatnonzero(scores.argmax(1) != true)
    expected = wrong[np.argsort(-scores.max(1)[wrong], kind="stable")]
    assert [each.source for each in figures.mistakes] == [f"{number}.jpg" for number in expected]
    counts = [each.images for each in figures.confused]
    assert counts == sorted(counts, reverse=True)
    assert all(each.true != each.predicted for each in figures.confused)


def test_without_images_metrics_are_none() -> None:
    figures = measure([], LABELS)
    assert (figures.images, figures.top1, figures.macro, figures.ece, figures.classes) == (0, None, None, None, ())
    assert [each.accuracy for each in figures.bins] == [None] * BINS


@pytest.mark.parametrize("count", [0, 1, NAMES, NAMES + 1, pytest.param(1_500, marks=pytest.mark.slow)])
def test_any_number_of_classes_can_be_plotted_and_tabled(count: int) -> None:
    labels = [f"class {number}, $x^{number}" for number in range(count)]
    figures = measure(
        [LabelledPrediction(Source("a"), each, ((each + each % 2) % count,), 0.7) for each in range(count)], labels
    )
    for draw in (confusion_plot, reliability_plot):
        stream = io.BytesIO()
        draw(figures, stream)
        assert Image.open(stream).convert("RGB").reduce(20).getcolors(5) is None
    stream = io.BytesIO()
    confusion_table(figures, stream)
    header, *rows = csv.reader(io.StringIO(stream.getvalue().decode()))
    assert header == ["true label", *labels]
    assert [row[0] for row in rows] == labels
    matrix = np.array([row[1:] for row in rows], int).reshape(count, count)
    assert (matrix.sum(1) == 1).all()
    assert np.trace(matrix) == sum(each.images for each in figures.confusion if each.true == each.predicted)
