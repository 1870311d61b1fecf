"""The names that classes have in a folder or a table -> the model's own classes."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from beitcli.errors import UsageError
from beitcli.evaluation.wordnet import wordnet_ids

_NAMED = 5
"""How many of the names that fit no class an error names."""


@dataclass(frozen=True, slots=True)
class Match:
    """The class that a name means, and what told it: `name`, `synonym`, `index` or `id`."""

    index: int
    by: str


@dataclass(frozen=True, slots=True)
class _Reading:
    """One way to read a name as a class: every name that it knows (`folded`: in one case), with the classes it has."""

    by: str
    classes: Mapping[str, frozenset[int]]
    folded: bool = False

    def of(self, name: str) -> frozenset[int]:
        return self.classes.get(name.casefold() if self.folded else name, frozenset())


def match(names: Iterable[str], labels: Sequence[str]) -> dict[str, Match]:
    """The class of each name: by the model's whole label, one of its synonyms, the index, or the WordNet id.

    In this order; then in this order again whatever the case. What means several classes in one way means none in it.
    Raises UsageError where a name means no class.
    """
    readings = _readings(labels)
    matches, unmatched = {}, []
    for name in sorted(set(names)):
        found = _first(name, readings)
        if found is None:
            unmatched.append(name)
        else:
            matches[name] = found
    if unmatched:
        shown = "; ".join(_complaint(name, readings) for name in unmatched[:_NAMED])
        more = f"; and {len(unmatched) - _NAMED} more" if len(unmatched) > _NAMED else ""
        raise UsageError(
            f"the model has no class for {len(unmatched)} of {len(unmatched) + len(matches)} labels: {shown}{more}",
            "a label is matched by the model's name for the class, a synonym, the index, or the WordNet id",
        )
    return matches


def _readings(labels: Sequence[str]) -> list[_Reading]:
    names = [(label, index) for index, label in enumerate(labels)]
    synonyms = [(part.strip(), index) for label, index in names for part in label.split(",")]
    ids = [(each, index) for index, each in enumerate(wordnet_ids(len(labels)))]
    exact = [
        _Reading("name", _by_name(names)),
        _Reading("synonym", _by_name(synonyms)),
        _Reading("index", {str(index): frozenset({index}) for _, index in names}),
        _Reading("id", _by_name(ids)),
    ]
    spelt = (("name", names), ("synonym", synonyms), ("id", ids))
    folded = [_Reading(by, _by_name((name.casefold(), index) for name, index in pairs), True) for by, pairs in spelt]
    return exact + folded


def _by_name(pairs: Iterable[tuple[str, int]]) -> dict[str, frozenset[int]]:
    classes: dict[str, set[int]] = {}
    for name, index in pairs:
        classes.setdefault(name, set()).add(index)
    return {name: frozenset(indices) for name, indices in classes.items()}


def _first(name: str, readings: Sequence[_Reading]) -> Match | None:
    for reading in readings:
        found = reading.of(name)
        if len(found) == 1:
            return Match(next(iter(found)), reading.by)
    return None


def _complaint(name: str, readings: Sequence[_Reading]) -> str:
    """The name, and what it was meant to be: the classes that all have it, or the nearest names."""
    several = next(filter(None, (reading.of(name) for reading in readings)), None)
    if several:
        return f"`{name}` (classes {', '.join(map(str, sorted(several)))} all have that name)"
    nearest = difflib.get_close_matches(name, readings[1].classes, n=3, cutoff=0.5)
    return f"`{name}`" + (f" (nearest: {', '.join(nearest)})" if nearest else "")
