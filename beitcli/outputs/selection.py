"""Filters of records and their scores: `threshold` and `label`."""

import difflib
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from beitcli.errors import UsageError
from beitcli.records import Failure, Record, composed


@dataclass(frozen=True, slots=True)
class Selection:
    """Drops scores below `threshold`, and rows whose best label is not in `indices`.

    Failures always stay.
    """

    threshold: float
    indices: frozenset[int] | None

    def of(self, records: Iterable[Record]) -> Iterator[Record]:
        for record in records:
            if isinstance(record, Failure):
                yield record
            elif self.indices is None or record.scores[0].index in self.indices:
                yield replace(record, scores=tuple(s for s in record.scores if s.score >= self.threshold))


def indices_of(wanted: Sequence[str], labels: Sequence[str]) -> frozenset[int] | None:
    """The outputs that carry one of the wanted labels, or None when none is wanted.

    A text names several labels with commas between them. A label with synonyms (`tabby, tabby cat`) is wanted by its
    whole text or by any of them. Raises UsageError for a label that the checkpoint does not have.
    """
    if not wanted:
        return None
    by_name: dict[str, set[int]] = {}
    for index, label in enumerate(labels):
        for name in (label, *label.split(", ")):
            by_name.setdefault(composed(name), set()).add(index)
    names = [name for text in wanted for name in _names_in(composed(text), by_name)]
    unknown = next((name for name in names if name not in by_name), None)
    if unknown is not None or not names:
        nearest = difflib.get_close_matches(unknown or "", by_name, n=3)
        raise UsageError(
            f"`label=`: the model has no label `{unknown or ','.join(wanted)}`",
            f"nearest: {', '.join(nearest)}" if nearest else "`beit models show MODEL` lists its labels",
        )
    return frozenset().union(*(by_name[name] for name in names))


def _names_in(text: str, known: Container[str]) -> Iterator[str]:
    """The names that the text lists: each the longest one that is known, as a comma may also be part of a name."""
    parts = text.split(",")
    while parts:
        ends = range(len(parts), 0, -1)
        end = next((end for end in ends if ",".join(parts[:end]).strip() in known), 1)
        if name := ",".join(parts[:end]).strip():
            yield name
        del parts[:end]
