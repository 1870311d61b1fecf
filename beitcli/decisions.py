"""Decisions: the label of each image of the results, by its record, the corrections and a threshold."""

import os
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from beitcli.errors import UsageError
from beitcli.inputs.sources import literal
from beitcli.inputs.spelling import existing_form
from beitcli.records import Failure, Record, Source, composed, printable

_NOWHERE: Mapping[str, str] = MappingProxyType({})

GONE = "no such file: was it moved or deleted since?"
"""Reason why nothing can be done with an image."""


@dataclass(frozen=True, slots=True)
class Decision:
    """An image of the results with its label, or its error's code; neither where no label is sure enough.

    `key` is its absolute path or its URL, `name` as messages show it, `as_of` the time of the results in nanoseconds.
    """

    key: str
    name: str
    source: Source
    label: str | None
    code: str | None = None
    as_of: int = 0


class Keys:
    """Keys of images: the absolute path, through no link of a folder, or the URL; for a sorted image, that before.

    Paths that a sorted image had until its label was corrected are also its own.
    """

    def __init__(self, images: Mapping[str, str] = _NOWHERE, placed: Container[str] = ()) -> None:
        """`images` are those that were sorted, by each absolute path that they have had, `placed` the present ones."""
        self._folders: dict[str, str] = {}
        self._images = images
        self._placed = placed

    def of(self, source: Source) -> str:
        if source.kind != "path":
            return source.location
        folder, name = os.path.split(source.location)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder or os.curdir)
        path = os.path.join(self._folders[folder], name)
        if path in self._images and (path in self._placed or not os.path.lexists(path)):
            return self._images[path]
        return path


def decisions(
    records: Iterable[Record], corrections: Mapping[str, str], threshold: float | None, keys: Keys, as_of: int
) -> Iterator[Decision]:
    """The decision for each record: its corrected label, else its best one where it scores at least the threshold."""
    for record in records:
        location = record.source.location
        source = Source(location, "stdin") if location == "-" else literal(existing_form(location))
        key, name = keys.of(source), record.source.name
        if key in corrections:
            yield Decision(key, name, source, corrections[key], as_of=as_of)
        elif isinstance(record, Failure):
            yield Decision(key, name, source, None, record.code, as_of)
        else:
            is_sure = record.scores and (threshold is None or record.scores[0].score >= threshold)
            yield Decision(key, name, source, composed(record.scores[0].label) if is_sure else None, as_of=as_of)


def each_once(found: Iterable[Decision]) -> tuple[list[Decision], int]:
    """Each image once, in order, and the number of those left out. Raises UsageError for results that differ."""
    chosen: dict[str, Decision] = {}
    repeated, several = 0, []
    for decision in found:
        first = chosen.setdefault(decision.key, decision)
        if first is not decision:
            repeated += 1
            if (first.label, first.code) != (decision.label, decision.code):
                several.append(decision.name)
    if several:
        raise UsageError(
            f"{len(several)} images have two results that differ, such as `{printable(several[0])}`",
            "name the results of one run",
        )
    return list(chosen.values()), repeated
