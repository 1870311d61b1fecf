"""What was answered, beside what is true -> how good the answers are."""

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
"""How sure an interval is."""

MOST_CONFUSED = 10
MOST_MISTAKES = 100


@dataclass(frozen=True, slots=True)
class Answer:
    """One picture's class, and the classes that the model takes it for: at most five, best first, the best's score."""

    source: Source
    truth: int
    best: tuple[int, ...]
    score: float


@dataclass(frozen=True, slots=True)
class Share:
    """A share in [0, 1], and the interval that holds the true one with 95 % confidence."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """One class: its pictures, and how they fared. What would be a division by zero is None."""

    index: int
    label: str
    pictures: int
    recall: Share | None
    precision: float | None
    f1: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """How many pictures of one class were taken for another, or for what they are."""

    truth: int
    predicted: int
    pictures: int


@dataclass(frozen=True, slots=True)
class Bin:
    """The pictures whose best score is above `low`, at most `high`: its mean, and the share of them that is right."""

    low: float
    high: float
    pictures: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Mistake:
    """A picture of one class that was taken for another, with the score that the wrong one got."""

    source: str
    truth: int
    predicted: int
    score: float


@dataclass(frozen=True, slots=True)
class Figures:
    """All figures of one evaluation; without a picture those that would be a division by zero are None.

    `macro` is the mean recall of the classes that have pictures, `ece` the expected calibration error. `classes` are
    those of the pictures or the answers, by index; `confusion` has every pair that occurs, `confused` the most frequent
    wrong ones, `mistakes` the most confident.
    """

    pictures: int
    top1: Share | None
    top5: Share | None
    macro: Share | None
    ece: float | None
    bins: tuple[Bin, ...]
    classes: tuple[ClassFigures, ...]
    confusion: tuple[Confusion, ...]
    confused: tuple[Confusion, ...]
    mistakes: tuple[Mistake, ...]


def measure(answers: Sequence[Answer], labels: Sequence[str]) -> Figures:
    """The figures that follow from the answers of a model with these labels."""
    # Counted here: sklearn's matrix is dense, 4 GB for ImageNet-22k, and its top-k accuracy wants all scores.
    pairs = Counter((answer.truth, answer.best[0]) for answer in answers)
    confusion = tuple(Confusion(*pair, count) for pair, count in sorted(pairs.items()))
    wrong = [each for each in confusion if each.truth != each.predicted]
    classes = _classes(answers, labels) if answers else ()
    bins = _bins(answers)
    mistakes = sorted((each for each in answers if each.truth != each.best[0]), key=lambda each: -each.score)
    return Figures(
        pictures=len(answers),
        top1=_share(sum(answer.truth == answer.best[0] for answer in answers), len(answers)),
        top5=_share(sum(answer.truth in answer.best for answer in answers), len(answers)),
        macro=_mean([each.recall for each in classes if each.recall]),
        ece=_calibration_error(bins, len(answers)),
        bins=bins,
        classes=classes,
        confusion=confusion,
        confused=tuple(sorted(wrong, key=lambda each: -each.pictures)[:MOST_CONFUSED]),
        mistakes=tuple(
            Mistake(each.source.name, each.truth, each.best[0], each.score) for each in mistakes[:MOST_MISTAKES]
        ),
    )


def _classes(answers: Sequence[Answer], labels: Sequence[str]) -> tuple[ClassFigures, ...]:
    truths = [answer.truth for answer in answers]
    best = [answer.best[0] for answer in answers]
    seen = sorted({*truths, *best})
    precisions, recalls, f1s, counts = precision_recall_fscore_support(truths, best, labels=seen, zero_division=np.nan)
    return tuple(
        ClassFigures(
            index=index,
            label=labels[index],
            pictures=int(count),
            recall=_share(round(recall * count), int(count)) if count else None,
            precision=None if np.isnan(precision) else float(precision),
            f1=float(f1),
        )
        for index, precision, recall, f1, count in zip(seen, precisions, recalls, f1s, counts, strict=True)
    )


def _share(right: int, count: int) -> Share | None:
    """The share with its interval by Wilson (1927), which stays within [0, 1] and is good for few pictures too."""
    if not count:
        return None
    interval = binomtest(right, count).proportion_ci(LEVEL, method="wilson")
    return Share(right / count, float(interval.low), float(interval.high))


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


def _bins(answers: Sequence[Answer]) -> tuple[Bin, ...]:
    """The bins of a reliability diagram: Guo et al. (2017), arXiv:1706.04599, section 2."""
    edges = np.linspace(0, 1, BINS + 1)
    scores = np.array([answer.score for answer in answers])
    place = np.searchsorted(edges[1:-1], scores)
    counts = np.bincount(place, minlength=BINS)
    confidence = np.bincount(place, scores, BINS)
    right = np.bincount(place, [answer.truth == answer.best[0] for answer in answers], BINS)
    return tuple(
        Bin(float(low), float(high), int(n), float(total / n) if n else None, float(hits / n) if n else None)
        for low, high, n, total, hits in zip(edges, edges[1:], counts, confidence, right, strict=False)
    )


def _calibration_error(bins: Sequence[Bin], pictures: int) -> float | None:
    """How far confidence and accuracy are apart, over the bins by their pictures: the same source's equation 3."""
    if not pictures:
        return None
    gaps = (each.pictures * abs((each.accuracy or 0) - (each.confidence or 0)) for each in bins)
    return sum(gaps) / pictures
