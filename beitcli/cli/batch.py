"""`beit batch`: records in a file, or streamed where there is no `--out`."""

import os
from functools import partial
from typing import Annotated

import typer

from beitcli.cli import notices, signals
from beitcli.cli.classify import check_columns, standard_format
from beitcli.cli.notices import log
from beitcli.cli.options import InputOptions, ModelOptions, OutputOptions, examples, with_options
from beitcli.cli.run import Destination, run
from beitcli.errors import UsageError
from beitcli.outputs.destination import check_writable, part_of, replaced_file, standard_output
from beitcli.records import printable

FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl"}
"""The format of a file by its suffix."""

EXAMPLES = examples(
    "beit batch ./images --out preds.csv",
    "beit batch ./archive -m base-224 -e jpg,png -E thumbs --out labels.jsonl",
    "find /share -name '*.jpg' -print0 | beit batch --files-from - -0 --out preds.tsv",
    "beit batch ./images --label cat --threshold 0.5 | wc -l",
)


@with_options
def batch(
    inputs: InputOptions,
    model: ModelOptions,
    output: OutputOptions,
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE|-",
            rich_help_panel="Output",
            help="Where the records go, complete or not at all; `-` = stdout.",
        ),
    ] = "-",
) -> None:
    """Classify many pictures into a file, or to standard output."""
    notices.set_up(output.quiet, output.verbose)
    model.check()
    if out == "-":
        raise typer.Exit(run(inputs, model, output, Destination(standard_output, standard_format(output), padded=True)))
    text_format = _file_format(out, output)
    inputs.check()
    check_writable(out)
    try:
        raise typer.Exit(run(inputs, model, output, Destination(partial(replaced_file, out), text_format, padded=True)))
    except signals.Stopped:
        if os.path.exists(part_of(out)):
            log.error("stopped; what was done until now is in `%s`", printable(part_of(out)))
        raise


def _file_format(out: str, output: OutputOptions) -> str:
    suffix = os.path.splitext(out)[1].lower()
    if output.format == "table":
        raise UsageError("--format table: a file is no terminal", "one of csv, tsv, jsonl")
    if output.format == "auto" and suffix not in FORMATS:
        raise UsageError(f"--out {printable(out)}: no format has the suffix `{suffix}`", f"one of {', '.join(FORMATS)}")
    text_format = output.format if output.format != "auto" else FORMATS[suffix]
    check_columns(output, text_format)
    return text_format
