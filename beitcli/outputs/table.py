"""Records as a table for a person at a terminal."""

from collections.abc import Iterable
from typing import TextIO

from rich.bar import Bar
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from beitcli.records import Failure, Record, printable

_BAR = 12
_SCORE = 6
_WIDE_ENOUGH = 50  # columns that leave room for a bar


class TableWriter:
    """Prints rows as they come, in columns sized once by the terminal; `colored` None lets rich decide."""

    def __init__(self, stream: TextIO, colored: bool | None) -> None:
        self._console = Console(
            file=stream,
            color_system=None if colored is False else "auto",
            force_terminal=colored or None,
            highlight=False,
        )
        bar = _BAR if self._console.width >= _WIDE_ENOUGH else 0
        flexible = max(12, self._console.width - bar - _SCORE - 8)
        self._widths = (flexible * 3 // 5, flexible - flexible * 3 // 5, bar, _SCORE)
        names = ("source", "label", "", "score")
        self._print([[Text(name, "bold") for name in names]])

    def write(self, records: Iterable[Record]) -> None:
        self._print([row for record in records for row in _rows(record)])
        self._console.file.flush()

    def _print(self, rows: list[list[RenderableType]]) -> None:
        table = Table.grid(padding=(0, 2, 0, 0))
        for width, justify in zip(self._widths, ("left", "left", "left", "right"), strict=True):
            table.add_column(width=width, justify=justify, overflow="fold")  # type: ignore[arg-type]
        for row in rows:
            table.add_row(*row)
        if rows:
            self._console.print(table)


def _rows(record: Record) -> list[list[RenderableType]]:
    """A row for each label; only the first has the source."""
    source = Text(printable(record.source.name))
    if isinstance(record, Failure):
        return [[source, Text(f"{record.code}: {printable(record.message)}", "red"), "", ""]]
    if not record.scores:
        return [[source, Text("–", "dim"), "", ""]]
    rows: list[list[RenderableType]] = []
    for rank, score in enumerate(record.scores):
        style = "" if rank else "bold"
        bar = Bar(1, 0, score.score, width=_BAR, color="bright_black" if rank else "green")
        rows.append(
            [Text() if rank else source, Text(printable(score.label), style), bar, Text(_shown(score.score), style)]
        )
    return rows


def _shown(score: float) -> str:
    """The score with four decimals, or as many as fit in its column: a regression's may have any size."""
    texts = (f"{score:.{digits}f}" for digits in (4, 3, 2, 1, 0))
    return next((text for text in texts if len(text) <= _SCORE), f"{score:.0e}")
