"""Thresholds empty rows, labels drop them, failures stay."""

import pytest

from beitcli.errors import UsageError
from beitcli.outputs.selection import Selection, indices_of
from beitcli.records import Failure, Prediction, Record, Score, Source

LABELS = ("tabby, tabby cat", "crane", "dog", "crane", "heron, bird", "bird")
DOG = Prediction(Source("d"), (Score("dog", 2, 0.6), Score("crane", 1, 0.3)))
CAT = Prediction(Source("c"), (Score("tabby, tabby cat", 0, 0.9),))
BROKEN = Failure(Source("b"), "corrupt", "")


@pytest.mark.parametrize(
    ("wanted", "indices"),
    [
        ([], None),
        (["dog"], {2}),
        (["crane"], {1, 3}),
        (["tabby cat"], {0}),
        (["tabby, tabby cat", "dog"], {0, 2}),
        (["dog,crane"], {1, 2, 3}),
        (["tabby, tabby cat,dog, "], {0, 2}),
        (["dog, heron, bird"], {2, 4}),  # not the other bird
        (["heron,bird"], {4, 5}),
    ],
)
def test_labels_by_text_or_synonym(wanted: list[str], indices: set[int] | None) -> None:
    assert indices_of(wanted, LABELS) == indices


def test_a_label_is_the_same_in_either_unicode_form() -> None:
    one, other = "\u00dcbung", "U\u0308bung"
    assert indices_of([one], ("a", other)) == indices_of([other], ("a", one)) == {1}


def test_an_unknown_label_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="`tabbi`") as caught:
        indices_of(["tabbi"], LABELS)
    assert caught.value.hint is not None
    assert "tabby" in caught.value.hint


@pytest.mark.parametrize(("wanted", "unknown"), [("dog,zebra crossing", "zebra crossing"), (" ,", " ,"), ("", "")])
def test_an_unknown_label_that_none_is_near(wanted: str, unknown: str) -> None:
    with pytest.raises(UsageError, match=f"no label `{unknown}`") as caught:
        indices_of([wanted], LABELS)
    assert caught.value.hint == "`beit models show MODEL` lists its labels"


@pytest.mark.parametrize(
    ("selection", "kept"),
    [
        (Selection(0, None), [DOG, BROKEN, CAT]),
        (Selection(0, frozenset({0})), [BROKEN, CAT]),
        (Selection(0.5, None), [Prediction(DOG.source, DOG.scores[:1]), BROKEN, CAT]),
        (Selection(0.95, frozenset({2})), [Prediction(DOG.source, ()), BROKEN]),
    ],
)
def test_kept_records(selection: Selection, kept: list[Record]) -> None:
    assert list(selection.of([DOG, BROKEN, CAT])) == kept
