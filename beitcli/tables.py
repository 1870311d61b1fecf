"""Tables on standard output: drawn by rich on a terminal, plain text elsewhere."""

import io
import sys
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Table:
    """A title, the names of columns, and rows of text."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


def show(tables: Iterable[Table], colored: bool | None = None, first: str | None = None) -> None:
    """Print tables, the line `first` above them if there is one.

    By rich on a terminal, with its own choice of colours if `colored` is None; as text elsewhere.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # not every locale has every letter
    if first is not None:
        print(first, end="\n\n")  # noqa: T201
    if sys.stdout is None or not sys.stdout.isatty():
        for table in tables:
            print("\n".join(_plain(table)), end="\n\n")  # noqa: T201
        return
    from rich.console import Console
    from rich.table import Table as Drawn
    from rich.text import Text

    console = Console(
        color_system=None if colored is False else "auto", force_terminal=colored or None, highlight=False
    )
    for table in tables:
        drawn = Drawn(title=table.title, title_justify="left", box=None, show_header=any(table.columns))
        for column in table.columns:
            drawn.add_column(column, overflow="fold")
        for row in table.rows:
            drawn.add_row(*map(Text, row))
        console.print(drawn, "")


def _plain(table: Table) -> list[str]:
    rows = [row for row in (table.columns, *table.rows) if any(row)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return [table.title, *(f"  {line}".rstrip() for line in lines)]
