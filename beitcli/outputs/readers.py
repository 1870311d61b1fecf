"""Strict readers of files of records."""

import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Any, BinaryIO, cast

from beitcli.errors import BeitError, UsageError
from beitcli.outputs.delimited import BOM, record_of_row, tsv_fields
from beitcli.outputs.jsonl import record_of
from beitcli.outputs.parquet import arrow_errors, schema
from beitcli.outputs.provenance import Provenance
from beitcli.records import SCORE_COLUMNS, Prediction, Record, column_names, printable

_ROWS_AT_ONCE = 100  # of Parquet: with all labels of a large model a row is megabytes of Python's objects


_BLOCK = 1 << 16


def check_no_page(path: str) -> None:
    """Raise UsageError for a page of `beit report`."""
    if path.lower().endswith(".html"):
        raise UsageError(
            f"`{printable(path)}` is a page: it shows results and holds none", "name what it was made from"
        )


class RecordReader:
    """Reads the records of one file.

    Known after reading: `columns`, the number of labels that its rows have room for, and `provenance` from Parquet.
    """

    def __init__(self, path: str, file_format: str, compressed: bool) -> None:
        self.path = path
        self.columns = 0
        self.provenance: Provenance | None = None
        self._format = file_format
        self._compressed = compressed
        self._number = 0  # of the line or row that is being read

    def records(self) -> Iterator[Record]:
        """The records, in the file's order. Raises BeitError that names the first invalid line."""
        read = {"csv": self._csv, "tsv": self._tsv, "jsonl": self._jsonl, "parquet": self._parquet}[self._format]
        name = f"`{printable(self.path)}`"
        try:
            for record in read():
                if isinstance(record, Prediction):
                    self.columns = max(self.columns, len(record.scores))
                yield record
        except ValueError as error:
            unit = "row" if self._format == "parquet" else "line"
            raise BeitError(
                f"{name}, {unit} {self._number}: {error}", "is it complete, and written by beit?"
            ) from error
        except (OSError, EOFError, zlib.error) as error:
            raise BeitError(f"cannot read {name}: {getattr(error, 'strerror', None) or error}") from error

    def count(self) -> Iterator[int]:
        """Numbers whose sum is that of the records, read at a fraction of the cost; a name of two lines counts twice.

        Raises OSError where the file cannot be read.
        """
        if self._format == "parquet":
            from pyarrow import parquet

            with arrow_errors(), parquet.ParquetFile(self.path) as file:
                yield file.metadata.num_rows
            return
        yield 0 if self._format == "jsonl" else -1  # the header
        try:
            with self._open() as stream:
                while block := stream.read(_BLOCK):
                    yield block.count(b"\n")
        except (EOFError, zlib.error) as error:
            raise OSError(str(error)) from error

    def _open(self) -> BinaryIO:
        return cast(BinaryIO, gzip.open(self.path)) if self._compressed else open(self.path, "rb")

    def _lines(self) -> Iterator[str]:
        """The lines without their ends. Raises ValueError where one is not UTF-8 or has no end."""
        with self._open() as stream:
            for line in stream:
                if not line.endswith(b"\n"):
                    raise ValueError("the file ends within the line")
                yield line[:-1].decode()

    def _table_lines(self) -> Iterator[str]:
        lines = self._lines()
        yield from (line.removeprefix(BOM) for line in islice(lines, 1))
        yield from lines

    def _csv(self) -> Iterator[Record]:
        rows = csv.reader((line + "\n" for line in self._table_lines()), strict=True)
        try:
            self._number = 1
            columns = self._columns_of(next(rows, []))
            self._number = rows.line_num + 1
            for row in rows:
                yield record_of_row(row, columns)
                self._number = rows.line_num + 1  # a field may hold line ends
        except csv.Error as error:
            raise ValueError(str(error)) from error

    def _tsv(self) -> Iterator[Record]:
        self._number = 1
        lines = self._table_lines()
        columns = self._columns_of(tsv_fields(next(lines, "")))
        self._number = 2
        for line in lines:
            yield record_of_row(tsv_fields(line), columns)
            self._number += 1

    def _columns_of(self, fields: list[str]) -> int:
        columns = max(0, (len(fields) - len(column_names(0))) // len(SCORE_COLUMNS))
        if fields != column_names(columns):
            raise ValueError("not the header of a file of records")
        self.columns = columns
        return columns

    def _jsonl(self) -> Iterator[Record]:
        self._number = 1
        for line in self._lines():
            yield record_of(_json(line))
            self._number += 1

    def _parquet(self) -> Iterator[Record]:
        from pyarrow import parquet

        with arrow_errors(), parquet.ParquetFile(self.path) as file:
            if not file.schema_arrow.equals(schema()):
                raise ValueError("the columns are not those of a file of records")
            self.provenance = Provenance.of_metadata(file.schema_arrow.metadata)
            self._number = 1
            for batch in file.iter_batches(_ROWS_AT_ONCE, use_threads=False):
                for row in batch.to_pylist():
                    yield record_of(_object(row))
                    self._number += 1


def _json(line: str) -> object:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise ValueError("no JSON that a record would be") from error


def _object(row: dict[str, Any]) -> object:
    """A row of Parquet as the argument of `record_of`."""
    import numpy

    predictions, code, message = row["predictions"], row["error_code"], row["error_message"]
    values = {"source": row["source"], "status": row["status"]}
    if predictions is None:
        return {**values, "error": {"code": code, "message": message}}
    if code is not None or message is not None:
        return None
    for score in filter(None, predictions):
        score["score"] = None if score["score"] is None else float(str(numpy.float32(score["score"])))
    return {**values, "predictions": predictions}
