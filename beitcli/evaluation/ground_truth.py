"""Class names of a folder or table -> the model's classes."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

from beitcli.errors import UsageError
from beitcli.evaluation.wordnet import wordnet_ids
from beitcli.records import composed, printable

Reading: TypeAlias = Literal["name", "wordnet", "index"]
"""One way to read all labels: names of classes with their synonyms, WordNet ids, or numbers of outputs."""

_MAX_LISTED = 5
"""Most labels that an error lists."""

_WORDS: dict[Reading, str] = {"name": "by name", "wordnet": "by WordNet id", "index": "by index"}


@dataclass(frozen=True, slots=True)
class Match:
    """The class of a name, and the rule that matched: `name`, `synonym`, `index` or `id`."""

    index: int
    by: str


Matches: TypeAlias = Mapping[str, Match]


@dataclass(frozen=True, slots=True)
class _Rule:
    """One rule to match names: every name that it knows (`folded`: case-folded), with its classes."""

    by: str
    classes: Mapping[str, frozenset[int]]
    folded: bool = False

    def match(self, name: str) -> frozenset[int]:
        spelled = composed(name)
        return self.classes.get(spelled.casefold() if self.folded else spelled, frozenset())


def match(names: Iterable[str], labels: Sequence[str], by: Reading | None = None) -> dict[str, Match]:
    """The class of each name, all of them by one reading: that of `by`, else the one that fits them all.

    By name, a name is the model's whole label or one of its synonyms, then the same in any case; a rule under which a
    name has several classes is skipped. Raises UsageError if no reading fits all names, and if another reading gives
    some of them other classes: if it fits all too, or if they are names of classes.
    """
    wanted, rules = sorted(set(names)), _rules(labels)
    readings: dict[Reading, Matches] = {
        reading: _matches(wanted, rules[reading]) for reading in get_args(Reading) if by in (None, reading)
    }
    whole = [reading for reading, matches in readings.items() if len(matches) == len(wanted)]
    if not whole:
        raise _no_reading(wanted, readings, rules)
    chosen = readings[whole[0]]
    if any(_differ(chosen, readings[other]) for other in whole) or _differ(chosen, readings.get("name", chosen)):
        raise _several_readings(wanted, readings, labels)
    return dict(chosen)


def _rules(labels: Sequence[str]) -> dict[Reading, list[_Rule]]:
    """The rules of each reading, first the one that is tried first."""
    names = [(composed(label), index) for index, label in enumerate(labels)]
    synonyms = [(part.strip(), index) for label, index in names for part in label.split(",")]
    ids = [(each, index) for index, each in enumerate(wordnet_ids(len(labels)))]
    numbers = [(str(index), index) for _, index in names]
    return {
        "name": [
            _rule("name", names),
            _rule("synonym", synonyms),
            _folded("name", names),
            _folded("synonym", synonyms),
        ],
        "wordnet": [_rule("id", ids), _folded("id", ids)],
        "index": [_rule("index", numbers)],
    }


def _rule(by: str, pairs: Iterable[tuple[str, int]]) -> _Rule:
    classes: dict[str, set[int]] = {}
    for name, index in pairs:
        classes.setdefault(name, set()).add(index)
    return _Rule(by, {name: frozenset(indices) for name, indices in classes.items()})


def _folded(by: str, pairs: Iterable[tuple[str, int]]) -> _Rule:
    return replace(_rule(by, ((name.casefold(), index) for name, index in pairs)), folded=True)


def _matches(names: Iterable[str], rules: Sequence[_Rule]) -> Matches:
    found = ((name, _first(name, rules)) for name in names)
    return {name: match for name, match in found if match is not None}


def _first(name: str, rules: Sequence[_Rule]) -> Match | None:
    for rule in rules:
        found = rule.match(name)
        if len(found) == 1:
            return Match(next(iter(found)), rule.by)
    return None


def _differ(one: Matches, other: Matches) -> bool:
    return any(one[name].index != other[name].index for name in one.keys() & other.keys())


def _no_reading(
    names: Sequence[str], readings: Mapping[Reading, Matches], rules: Mapping[Reading, Sequence[_Rule]]
) -> UsageError:
    partial = {reading: matches for reading, matches in readings.items() if matches}
    unmatched = {reading: [name for name in names if name not in readings[reading]] for reading in readings}
    if len(partial) > 1:
        lacking = (
            f"{_WORDS[reading]}, no class for {_listed([f'`{printable(name)}`' for name in unmatched[reading]])}"
            for reading in partial
        )
        return UsageError(
            f"no one reading fits all {len(names)} labels: {'; '.join(lacking)}",
            f"label all images in one way; {_decide(partial)} says which",
        )
    reading = next(iter(partial or readings))
    return UsageError(
        f"the model has no class for {len(unmatched[reading])} of {len(names)} labels: "
        f"{_listed([_unmatched(name, rules[reading]) for name in unmatched[reading]], '; ')}",
        "labels are the model's names for the classes or synonyms, or all of them WordNet ids, or all of them indices",
    )


def _several_readings(names: Sequence[str], readings: Mapping[Reading, Matches], labels: Sequence[str]) -> UsageError:
    partial = {reading: matches for reading, matches in readings.items() if matches}

    def shown(name: str) -> str:
        read = (
            f"{f'class `{printable(labels[matches[name].index])}`' if name in matches else 'none'} {_WORDS[reading]}"
            for reading, matches in partial.items()
        )
        return f"`{printable(name)}` is {', '.join(read)}"

    def is_clear(name: str) -> bool:
        return len({matches[name].index for matches in partial.values() if name in matches}) == 1

    return UsageError(
        f"the labels have several readings: {_listed([shown(name) for name in sorted(names, key=is_clear)], '; ')}",
        f"decide by {_decide(partial)}",
    )


def _decide(readings: Iterable[Reading]) -> str:
    return " or ".join(f"`label_by={reading}`" for reading in readings)


def _listed(parts: Sequence[str], separator: str = ", ") -> str:
    more = [f"and {len(parts) - _MAX_LISTED} more"] if len(parts) > _MAX_LISTED else []
    return separator.join([*parts[:_MAX_LISTED], *more])


def _unmatched(name: str, rules: Sequence[_Rule]) -> str:
    """The name, with the several classes that have it or the nearest names."""
    several = next(filter(None, (rule.match(name) for rule in rules)), None)
    if several:
        return f"`{printable(name)}` (classes {', '.join(map(str, sorted(several)))} all have that name)"
    known = [each for rule in rules if rule.by == "synonym" and not rule.folded for each in rule.classes]
    nearest = difflib.get_close_matches(composed(name), known, n=3, cutoff=0.5)
    return f"`{printable(name)}`" + (f" (nearest: {', '.join(nearest)})" if nearest else "")
