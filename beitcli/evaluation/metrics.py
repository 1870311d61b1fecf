"""Predictions and true labels -> accuracy, calibration, confusions."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import precision_recall_fscore_support

from beitcli.records import Source

BINS = 15
"""Bins of equal width for the calibration error, as in its source."""

LEVEL = 0.95
"""Confidence level of the intervals."""

MOST_CONFUSED = 10


@dataclass(frozen=True, slots=True)
class LabelledPrediction:
    """One image's true class, its predicted classes (at most five, best first), and the score of the best."""

    source: Source
    true: int
    best: tuple[int, ...]
    score: float


@dataclass(frozen=True, slots=True)
class Share:
    """A share in [0, 1], and its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """Metrics of one class. None where they would be a division by zero."""

    index: int
    label: str
    images: int
    recall: Share | None
    precision: float | None
    f1: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """Number of images of one true class with one predicted class, which may be the same."""

    true: int
    predicted: int
    images: int


@dataclass(frozen=True, slots=True)
class Bin:
    """The images whose best score is above `low`, at most `high`: mean score and accuracy."""

    low: float
    high: float
    images: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Mistake:
    """An image with a wrong prediction, and its score."""

    source: str
    true: int
    predicted: int
    score: float


@dataclass(frozen=True, slots=True)
class Figures:
    """All metrics of one evaluation. None where they would be a division by zero.

    `macro` is the mean recall of the classes that have images, `ece` the expected calibration error. `classes` are
    all true and predicted ones, by index; `confusion` has every pair that occurs, `confused` the most frequent
    wrong ones, `mistakes` every image with a wrong prediction, the most confident first.
    """

    images: int
    top1: Share | None
    top5: Share | None
    macro: Share | None
    ece: float | None
    bins: tuple[Bin, ...]
    classes: tuple[ClassFigures, ...]
    confusion: tuple[Confusion, ...]
    confused: tuple[Confusion, ...]
    mistakes: tuple[Mistake, ...]


def measure(predictions: Sequence[LabelledPrediction], labels: Sequence[str]) -> Figures:
    """Compute the metrics of a model with these labels."""
    # Counted here: sklearn's matrix is dense, 4 GB for ImageNet-22k, and its top-k accuracy needs all scores.
    pairs = Counter((prediction.true, prediction.best[0]) for prediction in predictions)
    confusion = tuple(Confusion(*pair, count) for pair, count in sorted(pairs.items()))
    wrong = [each for each in confusion if each.true != each.predicted]
    classes = _classes(predictions, labels) if predictions else ()
    bins = _bins(predictions)
    mistakes = sorted((each for each in predictions if each.true != each.best[0]), key=lambda each: -each.score)
    return Figures(
        images=len(predictions),
        top1=_share(sum(prediction.true == prediction.best[0] for prediction in predictions), len(predictions)),
        top5=_share(sum(prediction.true in prediction.best for prediction in predictions), len(predictions)),
        macro=_mean([each.recall for each in classes if each.recall]),
        ece=_calibration_error(bins, len(predictions)),
        bins=bins,
        classes=classes,
        confusion=confusion,
        confused=tuple(sorted(wrong, key=lambda each: -each.images)[:MOST_CONFUSED]),
        mistakes=tuple(Mistake(each.source.name, each.true, each.best[0], each.score) for each in mistakes),
    )


def _classes(predictions: Sequence[LabelledPrediction], labels: Sequence[str]) -> tuple[ClassFigures, ...]:
    true = [prediction.true for prediction in predictions]
    best = [prediction.best[0] for prediction in predictions]
    seen = sorted({*true, *best})
    precisions, recalls, f1s, counts = precision_recall_fscore_support(true, best, labels=seen, zero_division=np.nan)
    return tuple(
        ClassFigures(
            index=index,
            label=labels[index],
            images=int(count),
            recall=_share(round(recall * count), int(count)) if count else None,
            precision=None if np.isnan(precision) else float(precision),
            f1=float(f1),
        )
        for index, precision, recall, f1, count in zip(seen, precisions, recalls, f1s, counts, strict=True)
    )


def _share(correct: int, count: int) -> Share | None:
    """The share with its interval by Wilson (1927), which stays within [0, 1] and suits few images too."""
    if not count:
        return None
    interval = binomtest(correct, count).proportion_ci(LEVEL, method="wilson")
    return Share(correct / count, float(interval.low), float(interval.high))


def _mean(shares: Sequence[Share]) -> Share | None:
    """The mean of independent shares, its interval from theirs: Zou and Donner (2008), doi:10.1002/sim.3095."""
    if not shares:
        return None
    value, low, high = np.array([(share.value, share.low, share.high) for share in shares]).T
    mean = value.mean()
    return Share(
        float(mean),
        float(mean - np.linalg.norm(value - low) / len(shares)),
        float(mean + np.linalg.norm(high - value) / len(shares)),
    )


def _bins(predictions: Sequence[LabelledPrediction]) -> tuple[Bin, ...]:
    """The bins of a reliability diagram: Guo et al. (2017), arXiv:1706.04599, section 2."""
    edges = np.linspace(0, 1, BINS + 1)
    scores = np.array([prediction.score for prediction in predictions])
    place = np.searchsorted(edges[1:-1], scores)
    counts = np.bincount(place, minlength=BINS)
    confidence = np.bincount(place, scores, BINS)
    correct = np.bincount(place, [prediction.true == prediction.best[0] for prediction in predictions], BINS)
    return tuple(
        Bin(float(low), float(high), int(n), float(total / n) if n else None, float(hits / n) if n else None)
        for low, high, n, total, hits in zip(edges, edges[1:], counts, confidence, correct, strict=False)
    )


def _calibration_error(bins: Sequence[Bin], images: int) -> float | None:
    """Expected calibration error: equation 3 of Guo et al. (2017)."""
    if not images:
        return None
    gaps = (each.images * abs((each.accuracy or 0) - (each.confidence or 0)) for each in bins)
    return sum(gaps) / images
