"""The table for a terminal: widths, bars, failures, and names with control characters."""

import io
import re

import pytest

from beitcli.outputs.table import TableWriter
from beitcli.records import Failure, Prediction, Record, Score, Source

CAT: Record = Prediction(Source("cat.jpg"), (Score("cat", 3, 0.5), Score("dog", 5, 0.25)))


def printed(records: list[Record], colored: bool | None = False) -> str:
    stream = io.StringIO()
    writer = TableWriter(stream, colored)
    writer.write(records)
    return stream.getvalue()


def test_one_line_a_label_with_a_bar_for_its_score() -> None:
    header, first, second = printed([CAT]).splitlines()
    assert header.split() == ["source", "label", "score"]
    assert first.split() == ["cat.jpg", "cat", "██████", "0.5000"]
    assert second.split() == ["dog", "███", "0.2500"]


def test_columns_keep_their_widths() -> None:
    stream = io.StringIO()
    writer = TableWriter(stream, colored=False)
    writer.write([CAT])
    writer.write([Prediction(Source("x" * 300), (Score("y" * 200, 0, 1.0),)), CAT])
    ends = {len(line) for line in stream.getvalue().splitlines() if re.search(r"\d\.\d{4}$", line)}
    assert len(ends) == 1
    assert stream.getvalue().replace("\n", "").count("x") == 300


@pytest.mark.parametrize(
    ("score", "shown", "bar"),
    [
        (-0.5, "-0.500", ""),
        (-12.3456, "-12.35", ""),
        (1.5, "1.5000", "█" * 12),
        (123.456, "123.46", "█" * 12),
        (-123456.0, "-1e+05", ""),
        (3e38, "3e+38", "█" * 12),
    ],
)
def test_scores_of_a_regression_keep_the_columns(score: float, shown: str, bar: str) -> None:
    header, row = printed([Prediction(Source("a.jpg"), (Score("age", 0, score),))]).splitlines()
    assert row.split() == [*filter(None, ["a.jpg", "age", bar, shown])]
    assert len(row) == len(header)


@pytest.mark.parametrize("name", ["[red]x[/red].jpg", "[/nope].jpg", ":smile:.jpg", "a\x1b[31mb.jpg", "new\nline.jpg"])
def test_control_characters_in_names_are_escaped(name: str) -> None:
    text = printed([Prediction(Source(name), ()), Failure(Source("a.jpg"), "x", name)])
    shown = name.replace("\x1b", "\\x1b").replace("\n", "\\n")
    assert text.count(shown) == 2
    assert "\x1b" not in text


def test_failures_show_code_and_message() -> None:
    text = printed([Failure(Source("a.jpg"), "truncated", "ends early")])
    assert "truncated: ends early" in text


@pytest.mark.parametrize(("colored", "escapes"), [(True, True), (False, False), (None, False)])
def test_colours_only_where_requested(colored: bool | None, escapes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR")
    assert ("\x1b[" in printed([CAT], colored)) is escapes
