"""Items with true labels -> the figures of their predictions."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from beitcli.evaluation.metrics import Figures, LabelledPrediction, measure
from beitcli.gallery.items import Item
from beitcli.records import Failure, Prediction


def figures_of(items: Sequence[Item]) -> dict[str, Any] | None:
    """The figures of the predictions whose true labels are known, as a page shows them; None without any."""
    judged = [item for item in items if item.true is not None and not isinstance(item.record, Failure)]
    labels = _in_order(judged)
    numbers = {label: number for number, label in enumerate(labels)}
    predictions = [
        LabelledPrediction(
            item.record.source,
            numbers[item.true or ""],
            tuple(numbers[each.label] for each in item.record.scores[:5]),
            item.record.scores[0].score,
        )
        for item in judged
        if isinstance(item.record, Prediction) and item.record.scores
    ]
    return shown(measure(predictions, labels)) if predictions else None


def _in_order(items: Sequence[Item]) -> list[str]:
    """All labels of the items: those of the model in its order, then the others by name."""
    scores = (each for item in items if isinstance(item.record, Prediction) for each in item.record.scores)
    indices = {each.label: each.index for each in scores}
    others = {item.true for item in items if item.true is not None} - indices.keys()
    return [*sorted(indices, key=indices.__getitem__), *sorted(others)]


def shown(figures: Figures) -> dict[str, Any]:
    """The figures without the mistakes, which a page finds among its images."""
    values = asdict(figures)
    return {name: value for name, value in values.items() if name != "mistakes"}
