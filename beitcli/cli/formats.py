"""Choice of the record format."""

import sys
from collections.abc import Callable

from beitcli.cli.options import OutputOptions
from beitcli.errors import OutputError, UsageError
from beitcli.inputs.formats import SUFFIXES as IMAGES
from beitcli.jobs.requests import Labels
from beitcli.outputs.destination import is_stream
from beitcli.outputs.formats import BY_SUFFIX, FileFormat, by_suffix, check_bom
from beitcli.outputs.writers import Layout
from beitcli.records import printable


def standard_format(output: OutputOptions, labels: Labels) -> FileFormat:
    """Format for standard output: the requested one, else a table on a terminal and CSV elsewhere.

    Raises UsageError for a format that does not fit, OutputError if standard output is closed.
    """
    if sys.stdout is None:
        raise OutputError("standard output is closed")
    on_terminal = sys.stdout.isatty()
    if output.format == "table" and not on_terminal:
        raise UsageError("--format table: standard output is no terminal", "one of csv, tsv, jsonl")
    if output.format == "parquet":
        raise UsageError(
            "--format parquet: standard output is no file", "write one: `beit batch INPUT... --out FILE.parquet`"
        )
    name = output.format if output.format != "auto" else "table" if on_terminal else "csv"
    _check_columns(labels, name)
    return FileFormat(name)


def format_of_file(out: str, output: OutputOptions, labels: Labels) -> FileFormat:
    """Format for a file: the requested one, else by its suffix.

    Raises UsageError for an unknown suffix, or an image's: the file may be an input.
    """
    if output.format == "table":
        raise UsageError("--format table: a file is no terminal", "one of csv, tsv, jsonl, parquet")
    if out.lower().endswith(IMAGES):
        raise UsageError(f"`{printable(out)}` has the name of an image", f"one that ends with {', '.join(BY_SUFFIX)}")
    requested = None if output.format == "auto" else output.format
    if requested is None and is_stream(out) and not out.lower().endswith((*BY_SUFFIX, ".gz")):
        requested = "csv"
    found = by_suffix(out, requested)
    _check_columns(labels, found.name)
    return found


def _check_columns(labels: Labels, name: str) -> None:
    if labels.top_k == 0 and name not in ("jsonl", "parquet"):
        raise UsageError(f"--top-k 0: all labels do not fit a {name}", "choose --format jsonl, or parquet for a file")


def layout_for(file_format: FileFormat, output: OutputOptions) -> Callable[[int], Layout]:
    """Make the layout of the records from the number of labels of an image. Raises UsageError for an idle `--bom`."""
    if output.bom:
        check_bom(file_format.name)
    if file_format.name == "table":
        return lambda columns: Layout("table", columns, colored=output.colored)
    return lambda columns: Layout(file_format.name, columns, file_format.gzip, bom=output.bom)
