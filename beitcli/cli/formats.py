"""Which format the records get."""

import os
import sys

from beitcli.cli.options import OutputOptions
from beitcli.errors import OutputError, UsageError
from beitcli.records import printable

BY_SUFFIX = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl"}
"""The format of a file by its suffix."""


def standard_format(output: OutputOptions) -> str:
    """The format for standard output: what is asked for, else a table on a terminal and CSV elsewhere.

    Raises UsageError for a format that makes no sense there, OutputError where standard output is closed.
    """
    if sys.stdout is None:
        raise OutputError("standard output is closed")
    on_terminal = sys.stdout.isatty()
    if output.format == "table" and not on_terminal:
        raise UsageError("--format table: standard output is no terminal", "one of csv, tsv, jsonl")
    text_format = output.format if output.format != "auto" else "table" if on_terminal else "csv"
    _check_columns(output, text_format)
    return text_format


def file_format(out: str, output: OutputOptions) -> str:
    """The format for a file: what is asked for, else by its suffix. Raises UsageError where that says nothing."""
    suffix = os.path.splitext(out)[1].lower()
    if output.format == "table":
        raise UsageError("--format table: a file is no terminal", "one of csv, tsv, jsonl")
    if output.format == "auto" and suffix not in BY_SUFFIX:
        raise UsageError(
            f"--out {printable(out)}: no format has the suffix `{printable(suffix)}`", f"one of {', '.join(BY_SUFFIX)}"
        )
    text_format = output.format if output.format != "auto" else BY_SUFFIX[suffix]
    _check_columns(output, text_format)
    return text_format


def _check_columns(output: OutputOptions, text_format: str) -> None:
    if output.top_k == 0 and text_format != "jsonl":
        raise UsageError(f"--top-k 0: all labels do not fit a {text_format}", "add --format jsonl")
