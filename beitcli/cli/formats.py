"""Choice of the record format."""

import importlib.util
import os
import sys
from typing import NamedTuple

from beitcli.cli.options import OutputOptions
from beitcli.errors import OutputError, UsageError
from beitcli.inputs.formats import SUFFIXES as IMAGES
from beitcli.outputs.destination import is_stream
from beitcli.records import printable

BY_SUFFIX = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".parquet": "parquet"}
"""Format by file suffix; text formats also take `.gz` after it."""


class FileFormat(NamedTuple):
    """Name of a format, and whether the file is compressed by gzip."""

    name: str
    gzip: bool = False


def standard_format(output: OutputOptions) -> FileFormat:
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
    _check_columns(output, name)
    return FileFormat(name)


def format_of_file(out: str, output: OutputOptions) -> FileFormat:
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
    _check_columns(output, found.name)
    return found


def by_suffix(path: str, name: str | None = None) -> FileFormat:
    """Format called `name`, else by the suffix of `path`.

    Raises UsageError if neither names a format, or its package is missing.
    """
    stem, suffix = os.path.splitext(path.lower())
    compressed = suffix == ".gz"
    if compressed:
        suffix = os.path.splitext(stem)[1]
    if name is None and suffix not in BY_SUFFIX:
        raise UsageError(
            f"`{printable(path)}`: no format has the suffix `{printable(suffix)}`"
            if suffix
            else f"`{printable(path)}`: no suffix names its format",
            f"one of {', '.join(BY_SUFFIX)}, or with .gz behind; any name with --format",
        )
    found = FileFormat(name or BY_SUFFIX[suffix], compressed)
    if found.name == "parquet":
        _check_parquet(path, compressed)
    return found


def _check_parquet(path: str, compressed: bool) -> None:
    if compressed:
        raise UsageError(f"`{printable(path)}`: Parquet is compressed already", "leave out the .gz")
    if importlib.util.find_spec("pyarrow") is None:
        raise UsageError(f"`{printable(path)}`: Parquet needs pyarrow", "`pip install 'beitcli[parquet]'`")


def _check_columns(output: OutputOptions, name: str) -> None:
    if output.top_k == 0 and name not in ("jsonl", "parquet"):
        raise UsageError(f"--top-k 0: all labels do not fit a {name}", "choose --format jsonl, or parquet for a file")
