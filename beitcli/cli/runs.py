"""`beit runs`: the runs of a ledger, and a file of the results so far."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Annotated, Any

import typer

from beitcli.cli import commands, notices, progress
from beitcli.cli.flags import Flag, flags_of
from beitcli.cli.options import examples
from beitcli.jobs import runs as job
from beitcli.outputs.destination import ReaderClosed, writing
from beitcli.records import printable
from beitcli.tables import Table, show

EXAMPLES = examples(
    "beit runs preds.csv",
    "beit runs preds.csv --json | jq '.[-1].counts'",
    "beit runs preds.csv --export so-far.csv",
)

_COUNTS = ("images", "kept", "decoded", "reused", "failed")
_COLUMNS = ("started", "ended", "host", "version", "model", *_COUNTS, "exit", "settings")


def runs(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="The file of `batch`, `embed` or `eval --json`, or its ledger.", show_default=False
        ),
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="All of each run, as a list in JSON.", show_default=False)
    ] = False,
    export: Annotated[
        str | None,
        typer.Option("--export", metavar="OUT", help="Instead: write the results so far, in the format of its suffix."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No summary; errors only.", show_default=False)] = False,
) -> None:
    """List the runs that wrote a file, with models, settings, counts and ends.

    A run whose end is missing was killed; it has the counts of what it kept. With --export, the results of the last run
    are written, also where it was stopped.
    """
    notices.set_up(quiet, verbose=False)
    if export is not None:
        with progress.observer(quiet) as observer:
            tally = job.export(file, export, observer)
        if not quiet:
            notices.print_line(f"{tally.images} images so far, {tally.failed.total()} failed")
        return
    found = job.runs_of(file)
    with suppress(ReaderClosed), writing():
        if as_json:
            print(json.dumps([asdict(run) for run in found], indent=1))  # noqa: T201
        else:
            app = typer.main.get_command(commands.app_with(commands.COMMANDS.keys() & {run.command for run in found}))
            rows = [_row(asdict(run), flags_of(app, run.command)) for run in found]
            show([Table(f"Runs of `{printable(file)}`", _COLUMNS, rows)])


def _row(run: Mapping[str, Any], flags: Mapping[str, Flag]) -> tuple[str, ...]:
    counts = (str(run["counts"].get(name, "")) for name in _COUNTS)
    begin = (run["started"], run["ended"] or "", run["host"], run["version"], f"{run['model']} ({run['digest']})")
    return tuple(map(printable, (*begin, *counts, _end(run), _typed(run, flags))))


def _end(run: Mapping[str, Any]) -> str:
    if run["ended"] is None:
        return "killed"
    return run["signal"] or str(run["exit_status"])


def _typed(run: Mapping[str, Any], flags: Mapping[str, Flag]) -> str:
    """The settings as they are typed."""
    values = [(name, each) for name, value in run["settings"].items() for each in _each(value)]
    given = (flags[name].given(str(value)) if name in flags else None for name, value in values)
    return " ".join(flag.strip("`") for flag in given if flag)


def _each(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
