"""`beit classify`: records on standard output, for a person or a pipeline."""

import sys
from typing import Annotated

import typer

from beitcli.cli import notices
from beitcli.cli.options import InputOptions, ModelOptions, OutputOptions, examples, with_options
from beitcli.cli.run import Destination, run
from beitcli.errors import OutputError, UsageError
from beitcli.outputs.destination import standard_output

EXAMPLES = examples(
    "beit classify photo.jpg",
    "beit classify -m demo -k 3 ./photos 'more/**/*.png'",
    "beit classify https://example.org/cat.jpg --format jsonl",
    "curl -s https://example.org/cat.jpg | beit classify -",
)


def _refuse_out(out: str | None) -> None:
    if out is not None:
        raise UsageError("classify has no --out: it prints", "`beit batch INPUT... --out FILE` writes a file")


@with_options
def classify(
    inputs: InputOptions,
    model: ModelOptions,
    output: OutputOptions,
    out: Annotated[str | None, typer.Option("--out", "-o", hidden=True, callback=_refuse_out)] = None,  # noqa: ARG001
) -> None:
    """Print what is in pictures."""
    notices.set_up(output.quiet, output.verbose)
    model.check()
    text_format = standard_format(output)
    raise typer.Exit(run(inputs, model, output, Destination(standard_output, text_format, padded=False)))


def standard_format(output: OutputOptions) -> str:
    """The format for standard output: what is asked for, else a table on a terminal and CSV elsewhere.

    Raises UsageError for a table that nobody would see, and for all labels in columns; OutputError where it is closed.
    """
    if sys.stdout is None:
        raise OutputError("standard output is closed")
    on_terminal = sys.stdout.isatty()
    if output.format == "table" and not on_terminal:
        raise UsageError("--format table: standard output is no terminal", "one of csv, tsv, jsonl")
    text_format = output.format if output.format != "auto" else "table" if on_terminal else "csv"
    check_columns(output, text_format)
    return text_format


def check_columns(output: OutputOptions, text_format: str) -> None:
    """Raises UsageError for all labels in a format that has a column for each."""
    if output.top_k == 0 and text_format != "jsonl":
        raise UsageError(f"--top-k 0: all labels do not fit a {text_format}", "add --format jsonl")
