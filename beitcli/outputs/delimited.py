"""Records as CSV (RFC 4180) or TSV: a header, then one row a record."""

import re
from collections.abc import Iterable, Sequence
from typing import TextIO

from beitcli.records import Failure, Record, printable

_NEEDS_QUOTES = re.compile('[,"\r\n]')
_TSV_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


class CsvWriter:
    """Writes `columns` labels a row. On a terminal, control characters in names and labels are escaped."""

    def __init__(self, stream: TextIO, columns: int) -> None:
        self._stream = stream
        self._columns = columns
        self._escaped = stream.isatty()
        self._write_row(_header(columns))

    def write(self, records: Iterable[Record]) -> None:
        for record in records:
            self._write_row(_row(record, self._columns))
        self._stream.flush()

    def _write_row(self, row: Sequence[str]) -> None:
        fields = map(printable, row) if self._escaped else row
        self._stream.write(",".join(map(_quoted, fields)) + "\n")


class TsvWriter(CsvWriter):
    """Writes tabs between fields; tab, newline, CR and backslash in a field are `\\t \\n \\r \\\\`."""

    def _write_row(self, row: Sequence[str]) -> None:
        fields = [field.translate(_TSV_ESCAPES) for field in row]
        self._stream.write("\t".join(map(printable, fields) if self._escaped else fields) + "\n")


def _quoted(field: str) -> str:
    # Python's csv.writer leaves a lone CR bare where lines end with LF, and no reader takes that back.
    return '"' + field.replace('"', '""') + '"' if _NEEDS_QUOTES.search(field) else field


def _header(columns: int) -> list[str]:
    scores = [f"{name}{'' if rank == 1 else f'_{rank}'}" for rank in range(1, columns + 1) for name in _SCORE]
    return ["source", "status", *scores, "error_code", "error_message"]


_SCORE = ("label", "index", "score")


def _row(record: Record, columns: int) -> list[str]:
    width = columns * len(_SCORE)
    if isinstance(record, Failure):
        return [record.source.name, "error", *[""] * width, record.code, record.message]
    scores = [field for score in record.scores for field in (score.label, str(score.index), repr(score.score))]
    return [record.source.name, "ok", *scores, *[""] * (width - len(scores)), "", ""]
