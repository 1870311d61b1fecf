"""One evaluation, whole: as JSON for programs, and as tables for a person."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from beitcli.evaluation.metrics import BINS, Confusion, Figures, Share
from beitcli.model.catalog import DEMO_FOLDER, KNOWN
from beitcli.records import Failure, printable
from beitcli.tables import Table

SHOWN = 10
"""Rows of a table that could be long."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What answered, and how. `image_size` None is the checkpoint's own."""

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
class Truth:
    """Where the classes of the pictures are from, how many there are, and how many names matched in which way."""

    source: str
    classes: int
    matched_by: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Published:
    """A checkpoint's published accuracy in percent, and what it was measured on and with."""

    top1: float
    top5: float | None
    pictures: str
    preprocess: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was measured, and on what; `failures` are the pictures that could not be read."""

    version: str
    setting: Setting
    truth: Truth
    figures: Figures
    failures: Sequence[Failure]
    skipped: Mapping[str, int]

    @property
    def published(self) -> Published | None:
        known = next((known for known in KNOWN if known.location == self.setting.location), None)
        if known is None or known.top1 is None:
            return None
        recipe = "checkpoint" if known.location == DEMO_FOLDER else "paper"
        return Published(known.top1, known.top5, known.labels, recipe)


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """Everything, nothing rounded; failures by their code."""
    failed: dict[str, list[dict[str, str]]] = {}
    for failure in evaluation.failures:
        failed.setdefault(failure.code, []).append({"source": failure.source.name, "message": failure.message})
    return {
        "version": evaluation.version,
        "setting": asdict(evaluation.setting),
        "truth": asdict(evaluation.truth),
        "published": asdict(evaluation.published) if evaluation.published else None,
        "read": evaluation.figures.pictures,
        "failed": len(evaluation.failures),
        "skipped": dict(evaluation.skipped),
        "failures": failed,
        "figures": asdict(evaluation.figures),
    }


def tables(evaluation: Evaluation) -> Iterator[Table]:
    """What a person wants first; the long tables are cut to `SHOWN` rows, the worst of them."""
    figures = evaluation.figures
    labels = {each.index: printable(each.label) for each in figures.classes}
    yield Table("Evaluation", ("", ""), _evaluation(evaluation))
    yield _figures(figures, evaluation.published, evaluation.setting.labels)
    if not figures.pictures:
        return
    measured = [each for each in figures.classes if each.recall]
    worst = sorted(measured, key=lambda each: each.recall.value if each.recall else 0)[:SHOWN]
    title = (
        "Classes" if len(worst) == len(measured) else f"Classes, the {SHOWN} of {len(measured)} with the least recall"
    )
    yield Table(
        title,
        ("class", "pictures", "recall", "95 % interval", "precision", "f1"),
        [
            (labels[each.index], str(each.pictures), *_share(each.recall), _percent(each.precision), f"{each.f1:.3f}")
            for each in worst
        ],
    )
    if figures.confused:
        yield Table("Most often confused", ("class", "taken for", "pictures"), _confused(figures.confused, labels))
        yield Table(
            "Most confident mistakes",
            ("score", "class", "taken for", "picture"),
            [
                (f"{each.score:.4f}", labels[each.truth], labels[each.predicted], printable(each.source))
                for each in figures.mistakes[:SHOWN]
            ],
        )


def _evaluation(evaluation: Evaluation) -> list[tuple[str, ...]]:
    setting, truth, published = evaluation.setting, evaluation.truth, evaluation.published
    matched = ", ".join(f"{count} by {by}" for by, count in truth.matched_by.items())
    rows: list[tuple[str, ...]] = [
        ("model", f"{printable(setting.model)}, {setting.labels} classes"),
        ("run", f"--preprocess {setting.preprocess}, {setting.dtype} on {setting.device}"),
        (
            "truth",
            f"{truth.classes} classes from {printable(truth.source)}" + (f", matched {matched}" if matched else ""),
        ),
        ("pictures", f"{evaluation.figures.pictures} read, {len(evaluation.failures)} failed"),
    ]
    if published:
        same = published.preprocess == setting.preprocess and setting.image_size is None
        measured = f"measured on {published.pictures} with --preprocess {published.preprocess}"
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
    beside = (f"{published.top1:g} %", "" if published.top5 is None else f"{published.top5:g} %", "", "")
    rows = [(*row, other) for row, other in zip(rows, beside, strict=True)]
    return Table("Figures", ("", "value", "95 % interval", "published"), rows)


def _confused(confused: Sequence[Confusion], labels: Mapping[int, str]) -> list[tuple[str, ...]]:
    return [(labels[each.truth], labels[each.predicted], str(each.pictures)) for each in confused]


def _share(share: Share | None) -> tuple[str, str]:
    if share is None:
        return "–", ""
    return _percent(share.value), f"{100 * share.low:.2f}–{100 * share.high:.2f} %"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"
