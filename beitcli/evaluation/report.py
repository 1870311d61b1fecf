"""The report of one evaluation, as JSON and as tables."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, BinaryIO

from beitcli.evaluation.metrics import BINS, Confusion, Figures, Share
from beitcli.model.catalog import DEMO_FOLDER, KNOWN
from beitcli.records import Failure, printable
from beitcli.tables import Table

SHOWN = 10
"""Most rows of a long table."""

MOST_MISTAKES = 100
"""Most mistakes in the JSON file."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Model and settings of an evaluation. `image_size` None is the checkpoint's own."""

    model: str
    location: str
    revision: str | None
    labels: int
    preprocess: str
    image_size: int | None
    fast_decode: bool
    device: str
    dtype: str


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """Source and number of the true classes, and the number of names that each rule matched."""

    source: str
    classes: int
    matched_by: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Published:
    """A checkpoint's published accuracy in percent, the images and the preprocessing it was measured with."""

    top1: float
    top5: float | None
    images: str
    preprocess: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Metrics, and how they were measured; `failures` are the images that could not be read.

    `learnt` is the number of read images that the model has learnt from, None where it does not say.
    """

    version: str
    setting: Setting
    ground_truth: GroundTruth
    figures: Figures
    failures: Sequence[Failure]
    skipped: Mapping[str, int]
    learnt: int | None = None

    @property
    def published(self) -> Published | None:
        known = next((known for known in KNOWN if known.location == self.setting.location), None)
        if known is None or known.top1 is None:
            return None
        preprocessing = "checkpoint" if known.location == DEMO_FOLDER else "paper"
        return Published(known.top1, known.top5, known.labels, preprocessing)


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """All results, nothing rounded; failures by their code, and of the mistakes the most confident."""
    failed: dict[str, list[dict[str, str]]] = {}
    for failure in evaluation.failures:
        failed.setdefault(failure.code, []).append({"source": failure.source.name, "message": failure.message})
    figures = replace(evaluation.figures, mistakes=evaluation.figures.mistakes[:MOST_MISTAKES])
    return {
        "version": evaluation.version,
        "setting": asdict(evaluation.setting),
        "ground_truth": asdict(evaluation.ground_truth),
        **({} if evaluation.learnt is None else {"learnt": evaluation.learnt}),
        "published": asdict(evaluation.published) if evaluation.published else None,
        "read": evaluation.figures.images,
        "failed": len(evaluation.failures),
        "skipped": dict(evaluation.skipped),
        "failures": failed,
        "figures": asdict(figures),
    }


def warning_of(evaluation: Evaluation) -> str | None:
    """A line on images that the model has learnt from, if there are any: it knows their labels."""
    if not evaluation.learnt:
        return None
    name, count = printable(evaluation.setting.model), evaluation.figures.images
    return f"`{name}` has learnt from {evaluation.learnt} of these {count} images: on others it may be less accurate"


def mistakes_table(evaluation: Evaluation, stream: BinaryIO) -> None:
    """Write every image with a wrong prediction as CSV, the most confident first."""
    label = {each.index: each.label for each in evaluation.figures.classes}
    text = io.TextIOWrapper(stream, encoding="utf-8", errors="backslashreplace", newline="", write_through=True)
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["path", "true_label", "predicted_label", "confidence"])
    for each in evaluation.figures.mistakes:
        rows.writerow([each.source, label[each.true], label[each.predicted], each.score])
    text.detach()  # the stream is the caller's to close


def tables(evaluation: Evaluation) -> Iterator[Table]:
    """The main results as tables; long tables are cut to the worst `SHOWN` rows."""
    figures = evaluation.figures
    labels = {each.index: printable(each.label) for each in figures.classes}
    yield Table("Evaluation", ("", ""), _evaluation(evaluation))
    yield _figures(figures, evaluation.published, evaluation.setting.labels)
    if not figures.images:
        return
    measured = [each for each in figures.classes if each.recall]
    worst = sorted(measured, key=lambda each: each.recall.value if each.recall else 0)[:SHOWN]
    title = (
        "Classes" if len(worst) == len(measured) else f"Classes, the {SHOWN} of {len(measured)} with the least recall"
    )
    yield Table(
        title,
        ("class", "images", "recall", "95 % interval", "precision", "f1"),
        [
            (labels[each.index], str(each.images), *_share(each.recall), _percent(each.precision), f"{each.f1:.3f}")
            for each in worst
        ],
    )
    if figures.confused:
        yield Table(
            "Most often confused", ("true label", "predicted label", "images"), _confused(figures.confused, labels)
        )
        yield Table(
            "Most confident mistakes",
            ("score", "true label", "predicted label", "image"),
            [
                (f"{each.score:.4f}", labels[each.true], labels[each.predicted], printable(each.source))
                for each in figures.mistakes[:SHOWN]
            ],
        )


def _evaluation(evaluation: Evaluation) -> list[tuple[str, ...]]:
    setting, ground_truth, published = evaluation.setting, evaluation.ground_truth, evaluation.published
    matched = ", ".join(f"{count} by {by}" for by, count in ground_truth.matched_by.items())
    rows: list[tuple[str, ...]] = [
        ("model", f"{printable(setting.model)}, {setting.labels} classes"),
        ("run", f"--preprocess {setting.preprocess}, {setting.dtype} on {setting.device}"),
        (
            "ground truth",
            f"{ground_truth.classes} classes from {printable(ground_truth.source)}"
            + (f", matched {matched}" if matched else ""),
        ),
        ("images", f"{evaluation.figures.images} read, {len(evaluation.failures)} failed"),
    ]
    if published:
        same = published.preprocess == setting.preprocess and setting.image_size is None
        measured = f"measured on {published.images} with --preprocess {published.preprocess}"
        rows.append(("published", measured if same else f"{measured}, other than this run"))
    return rows


def _figures(figures: Figures, published: Published | None, labels: int) -> Table:
    error = "–" if figures.ece is None else f"{figures.ece:.4f}"
    rows: list[tuple[str, ...]] = [
        ("top-1", *_share(figures.top1)),
        (f"top-{min(5, labels)}", *_share(figures.top5)),
        ("macro (mean recall of the classes)", *_share(figures.macro)),
        (f"calibration error (ECE, {BINS} bins)", error, ""),
    ]
    if published is None:
        return Table("Figures", ("", "value", "95 % interval"), rows)
    published_column = (f"{published.top1:g} %", "" if published.top5 is None else f"{published.top5:g} %", "", "")
    rows = [(*row, other) for row, other in zip(rows, published_column, strict=True)]
    return Table("Figures", ("", "value", "95 % interval", "published"), rows)


def _confused(confused: Sequence[Confusion], labels: Mapping[int, str]) -> list[tuple[str, ...]]:
    return [(labels[each.true], labels[each.predicted], str(each.images)) for each in confused]


def _share(share: Share | None) -> tuple[str, str]:
    if share is None:
        return "–", ""
    return _percent(share.value), f"{100 * share.low:.2f}–{100 * share.high:.2f} %"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"
