"""Records as CSV (RFC 4180) or TSV: a header, then one row a record."""

import re
from collections.abc import Iterable, Sequence
from typing import TextIO

from beitcli.outputs.jsonl import record_of
from beitcli.records import SCORE_COLUMNS, Failure, Record, column_names, printable

BOM = "\ufeff"
"""The byte order mark, by which Excel recognises UTF-8."""

_NEEDS_QUOTES = re.compile('[,"\r\n]')
_TSV_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_TSV_ESCAPED = str.maketrans(_TSV_ESCAPES)
_TSV_UNESCAPED = {escape: character for character, escape in _TSV_ESCAPES.items()}
_TSV_ESCAPE = re.compile(r"\\.?", re.S)


class CsvWriter:
    """Writes `columns` labels a row. On a terminal, control characters in names and labels are escaped."""

    def __init__(self, stream: TextIO, columns: int) -> None:
        self._stream = stream
        self._columns = columns
        self._escaped = stream.isatty()
        self._write_row(column_names(columns))

    def write(self, records: Iterable[Record]) -> None:
        for record in records:
            self._write_row(_row(record, self._columns))
        self._stream.flush()

    def _write_row(self, row: Sequence[str]) -> None:
        self._stream.write(csv_line(map(printable, row) if self._escaped else row))


class TsvWriter(CsvWriter):
    """Writes tabs between fields; tab, newline, CR and backslash in a field are `\\t \\n \\r \\\\`."""

    def _write_row(self, row: Sequence[str]) -> None:
        fields = [field.translate(_TSV_ESCAPED) for field in row]
        self._stream.write("\t".join(map(printable, fields) if self._escaped else fields) + "\n")


def csv_line(fields: Iterable[str]) -> str:
    """The fields as a line of CSV, quoted where they need it."""
    return ",".join(map(_quoted, fields)) + "\n"


def _quoted(field: str) -> str:
    # Python's csv.writer leaves a lone CR unquoted where lines end with LF, and no reader accepts that.
    return '"' + field.replace('"', '""') + '"' if _NEEDS_QUOTES.search(field) else field


def _row(record: Record, columns: int) -> list[str]:
    width = columns * len(SCORE_COLUMNS)
    if isinstance(record, Failure):
        return [record.source.name, "error", *[""] * width, record.code, record.message]
    scores = [field for score in record.scores for field in (score.label, str(score.index), repr(score.score))]
    return [record.source.name, "ok", *scores, *[""] * (width - len(scores)), "", ""]


def record_of_row(row: Sequence[str], columns: int) -> Record:
    """The record of a row below `column_names(columns)`. Raises ValueError that names the fault."""
    width = columns * len(SCORE_COLUMNS) + 4
    if len(row) != width:
        raise ValueError(f"{len(row)} fields instead of {width}")
    source, status, *fields, code, message = row
    groups = [fields[start : start + len(SCORE_COLUMNS)] for start in range(0, len(fields), len(SCORE_COLUMNS))]
    while groups and not any(groups[-1]):
        groups.pop()
    if status == "ok" and not code and not message:
        scores = [{"label": label, "index": _whole(index), "score": _real(score)} for label, index, score in groups]
        return record_of({"source": source, "status": status, "predictions": scores})
    if status == "error" and not groups:
        return record_of({"source": source, "status": status, "error": {"code": code, "message": message}})
    raise ValueError("neither a prediction nor an error")


def _whole(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", text):
        raise ValueError(f"`{text}` is no index")
    return int(text)


def _real(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"`{text}` is no score") from None


def tsv_fields(line: str) -> list[str]:
    """The unescaped fields of a line of TSV. Raises ValueError for an unknown escape."""
    return [_TSV_ESCAPE.sub(_unescaped, field) if "\\" in field else field for field in line.split("\t")]


def _unescaped(match: re.Match[str]) -> str:
    if match[0] not in _TSV_UNESCAPED:
        raise ValueError(f"`{match[0]}` is no escape")
    return _TSV_UNESCAPED[match[0]]
