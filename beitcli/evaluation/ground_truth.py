"""Class names of a folder or table -> the model's classes."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from beitcli.errors import UsageError
from beitcli.evaluation.wordnet import wordnet_ids

_MAX_LISTED = 5
"""Most unmatched names that an error lists."""


@dataclass(frozen=True, slots=True)
class Match:
    """The class of a name, and the rule that matched: `name`, `synonym`, `index` or `id`."""

    index: int
    by: str


@dataclass(frozen=True, slots=True)
class _Rule:
    """One rule to match names: every name that it knows (`folded`: case-folded), with its classes."""

    by: str
    classes: Mapping[str, frozenset[int]]
    folded: bool = False

    def match(self, name: str) -> frozenset[int]:
        return self.classes.get(name.casefold() if self.folded else name, frozenset())


def match(names: Iterable[str], labels: Sequence[str]) -> dict[str, Match]:
    """The class of each name: by the model's whole label, one of its synonyms, the index, or the WordNet id.

    In this order; then in this order again ignoring case. A rule under which a name has several classes is skipped.
    Raises UsageError if a name matches no class.
    """
    rules = _rules(labels)
    matches, unmatched = {}, []
    for name in sorted(set(names)):
        found = _first(name, rules)
        if found is None:
            unmatched.append(name)
        else:
            matches[name] = found
    if unmatched:
        shown = "; ".join(_unmatched(name, rules) for name in unmatched[:_MAX_LISTED])
        more = f"; and {len(unmatched) - _MAX_LISTED} more" if len(unmatched) > _MAX_LISTED else ""
        raise UsageError(
            f"the model has no class for {len(unmatched)} of {len(unmatched) + len(matches)} labels: {shown}{more}",
            "a label is matched by the model's name for the class, a synonym, the index, or the WordNet id",
        )
    return matches


def _rules(labels: Sequence[str]) -> list[_Rule]:
    names = [(label, index) for index, label in enumerate(labels)]
    synonyms = [(part.strip(), index) for label, index in names for part in label.split(",")]
    ids = [(each, index) for index, each in enumerate(wordnet_ids(len(labels)))]
    exact = [
        _Rule("name", _by_name(names)),
        _Rule("synonym", _by_name(synonyms)),
        _Rule("index", {str(index): frozenset({index}) for _, index in names}),
        _Rule("id", _by_name(ids)),
    ]
    by_rule = (("name", names), ("synonym", synonyms), ("id", ids))
    folded = [_Rule(by, _by_name((name.casefold(), index) for name, index in pairs), True) for by, pairs in by_rule]
    return exact + folded


def _by_name(pairs: Iterable[tuple[str, int]]) -> dict[str, frozenset[int]]:
    classes: dict[str, set[int]] = {}
    for name, index in pairs:
        classes.setdefault(name, set()).add(index)
    return {name: frozenset(indices) for name, indices in classes.items()}


def _first(name: str, rules: Sequence[_Rule]) -> Match | None:
    for rule in rules:
        found = rule.match(name)
        if len(found) == 1:
            return Match(next(iter(found)), rule.by)
    return None


def _unmatched(name: str, rules: Sequence[_Rule]) -> str:
    """The name, with the several classes that have it or the nearest names."""
    several = next(filter(None, (rule.match(name) for rule in rules)), None)
    if several:
        return f"`{name}` (classes {', '.join(map(str, sorted(several)))} all have that name)"
    nearest = difflib.get_close_matches(name, rules[1].classes, n=3, cutoff=0.5)
    return f"`{name}`" + (f" (nearest: {', '.join(nearest)})" if nearest else "")
