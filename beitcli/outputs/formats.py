"""File formats of records, by the suffix of the file."""

import importlib.util
import os
from typing import NamedTuple

from beitcli.errors import UsageError
from beitcli.records import printable

BY_SUFFIX = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".parquet": "parquet"}
"""Format by file suffix; text formats also take `.gz` after it."""


class FileFormat(NamedTuple):
    """Name of a format, and whether the file is compressed by gzip."""

    name: str
    gzip: bool = False


def check_bom(name: str) -> None:
    """Raise UsageError for a format that has no byte order mark."""
    if name not in ("csv", "tsv"):
        raise UsageError(f"`bom=True` is for csv and tsv, not {name}", "leave it out, or choose one of them")


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
            f"one of {', '.join(BY_SUFFIX)}, or with .gz behind; any name with `format=`",
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
