"""Validated images of a training: their predictions by a model that has not learnt from them."""

import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from beitcli.errors import UsageError
from beitcli.records import Failure, Found, Prediction
from beitcli.training.data.examples import Example
from beitcli.training.work_dir import work_errors

_TABLE = "validation.csv"


@dataclass(frozen=True, slots=True)
class ValidatedImage:
    """One validation image: true and predicted class, the score of that prediction, and the rank of the true class.

    Ranks count from 0, and only as far as there are scores. `fold`, from 1, is that of a cross-validation.
    """

    path: str
    true: int
    predicted: int
    confidence: float
    rank: int
    fold: int | None = None


@dataclass(frozen=True, slots=True)
class ModelPredictions:
    """One record per image by a saved model, and how it was computed, as in `fp32 on cpu`."""

    records: Sequence[Prediction | Failure]
    computed: str


Validate: TypeAlias = Callable[[str, Sequence[Found]], ModelPredictions]
"""The predictions of the model in a folder on images."""


def validated_images(
    examples: Sequence[Example], predictions: ModelPredictions, classes: Sequence[str]
) -> list[ValidatedImage]:
    """The examples that were predicted. Raises UsageError for none: the images have become unreadable."""
    images = []
    for example, record in zip(examples, predictions.records, strict=True):
        if isinstance(record, Prediction):
            best = [score.index for score in record.scores]
            rank = best.index(example.target) if example.target in best else len(classes)
            images.append(ValidatedImage(record.source.name, example.target, best[0], record.scores[0].score, rank))
    if not images:
        raise UsageError("no validation image can be read")
    return images


def mistakes_of(images: Sequence[ValidatedImage]) -> list[ValidatedImage]:
    """The images with a wrong prediction, the most confident first."""
    return sorted((each for each in images if each.predicted != each.true), key=lambda each: -each.confidence)


def write_table(images: Sequence[ValidatedImage], classes: Sequence[str], folder: str) -> None:
    """Write `validation.csv` into the folder, a row for each image. Raises OutputError."""
    path = os.path.join(folder, _TABLE)
    with work_errors(), open(path, "w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(["path", "true_label", "predicted_label", "confidence", "fold"])
        for each in images:
            rows.writerow([each.path, classes[each.true], classes[each.predicted], each.confidence, each.fold])
