"""Items of a page: images with their records and true labels, and a sample of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from beitcli.records import Prediction, Record, Source


@dataclass(frozen=True, slots=True)
class Item:
    """One image: its record, where it is found, and its true label if that is known.

    `source` may differ from the record's, whose path may be relative to another folder.
    """

    record: Record
    source: Source
    true: str | None = None


@dataclass(frozen=True, slots=True)
class Gallery:
    """Everything that a page shows.

    `labels` are all that the model knows, as far as that is known, and `about` pairs of a name and a fact. `figures`
    are those of an evaluation, as in its JSON. `left_out` is the number of images that a sample leaves out, and `note`
    a sentence on what the page does not show, or on what to think of its figures.
    """

    title: str
    items: Sequence[Item]
    labels: Sequence[str] = ()
    about: Sequence[tuple[str, str]] = ()
    figures: dict[str, Any] | None = None
    left_out: int = 0
    note: str = field(default="")


def sample(items: Iterable[Item], size: int) -> list[Item]:
    """The `size` least and most certain images of each label, and as many failures of each code, in their order."""
    groups: dict[tuple[str, str | None], list[tuple[float, int]]] = {}
    items = list(items)
    for number, item in enumerate(items):
        record = item.record
        if isinstance(record, Prediction):
            groups.setdefault(("label", record.label), []).append((record.score or 0.0, number))
        else:
            groups.setdefault(("code", record.code), []).append((0.0, number))
    chosen: set[int] = set()
    for (kind, _), members in groups.items():
        members.sort()
        chosen.update(number for _, number in members[:size])
        chosen.update(number for _, number in members[-size:] if kind == "label")
    return [items[number] for number in sorted(chosen)]
