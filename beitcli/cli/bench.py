"""`beit bench`: how fast it is on this machine, and what to set."""

import json
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from beitcli.bench.clock import FULL, SMALL
from beitcli.bench.shapes import PUBLISHED, TINY
from beitcli.bench.versus import RIVALS, check_rivals
from beitcli.cli import notices
from beitcli.cli.options import ModelOptions, examples
from beitcli.errors import UsageError
from beitcli.inputs.sources import Walk, discover
from beitcli.model.memory import use_one_heap

if TYPE_CHECKING:
    from beitcli.bench.report import Table

EXAMPLES = examples(
    "beit bench",
    "beit bench ~/photos --shape large-384",
    "beit bench --vs transformers --vs openvino",
    "beit bench --json -q > here.json",
)


def bench(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT...", help="Pictures as for `classify` [default: some are made].", show_default=False
        ),
    ] = None,
    shape: Annotated[
        str, typer.Option(metavar="|".join(PUBLISHED), help="Which model, with random weights: nothing is downloaded.")
    ] = "base-224",
    vs: Annotated[
        list[str] | None,
        typer.Option("--vs", metavar="|".join(RIVALS), help="Run this on the same pictures, in turns (repeatable)."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object: every figure with all its times.", show_default=False)
    ] = False,
    device: Annotated[
        str, typer.Option(metavar="auto|cpu|cuda[:N]|mps", envvar="BEIT_DEVICE", help="Where the model runs.")
    ] = "auto",
    pictures: Annotated[
        int, typer.Option("--pictures", "-n", metavar="N", min=1, help="Make so many, or take the first N of INPUT.")
    ] = 200,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notices; errors only.", show_default=False)] = False,
) -> None:
    """Measure how fast it is on this machine, and say what to set."""
    notices.set_up(quiet, verbose=False)
    shapes = PUBLISHED | {TINY.name: TINY}
    if shape not in shapes:
        raise UsageError(f"--shape {shape}: no such shape", f"one of {', '.join(PUBLISHED)}")
    ModelOptions(device=device).check()
    rivals = tuple(vs or ())
    check_rivals(rivals)
    found = discover(inputs, (), Walk(), Counter()) if inputs else None
    use_one_heap()  # before torch starts threads
    from beitcli.bench.measure import Plan, measure
    from beitcli.bench.report import tables
    from beitcli.model.runtime import usable_cores

    effort = SMALL if shape == TINY.name else FULL
    report = measure(found, Plan(shapes[shape], device, rivals, pictures, usable_cores(), effort))
    if as_json:
        print(json.dumps(asdict(report)))  # noqa: T201
    else:
        show(tables(report))


def show(tables: "Iterable[Table]") -> None:
    """Prints tables: for a terminal drawn by rich, elsewhere as plain text of any width."""
    if sys.stdout is None or not sys.stdout.isatty():
        for table in tables:
            print("\n".join(_plain(table)), end="\n\n")  # noqa: T201
        return
    from rich.console import Console
    from rich.table import Table as Drawn

    console = Console(highlight=False)
    for table in tables:
        drawn = Drawn(*table.columns, title=table.title, title_justify="left", box=None, show_header=any(table.columns))
        for row in table.rows:
            drawn.add_row(*row)
        console.print(drawn, "")


def _plain(table: "Table") -> list[str]:
    rows = [row for row in (table.columns, *table.rows) if any(row)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return [table.title, *(f"  {line}".rstrip() for line in lines)]
