"""Records as Parquet: typed columns, in groups of rows, with a footer without which nothing can be read."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from beitcli.records import Failure, Record

if TYPE_CHECKING:
    import pyarrow

MOST_ROWS = 10_000
MOST_SCORES = 100_000
"""A group of rows is held in memory and written when it reaches either limit: with `top_k=0` a thousand rows may be a
million scores. Groups depend only on the records, not on the calls of `write`."""


class ParquetWriter:
    """Writes a group of rows whenever one is full, and on closing the rest and the footer with the metadata."""

    def __init__(self, stream: BinaryIO, metadata: Mapping[str, str]) -> None:
        from pyarrow import parquet

        self._group: list[Record] = []
        self._scores = 0
        self._groups = 0
        with arrow_errors():
            self._file = parquet.ParquetWriter(stream, schema().with_metadata(metadata), compression="zstd")

    def write(self, records: Iterable[Record]) -> None:
        for record in records:
            self._group.append(record)
            self._scores += 0 if isinstance(record, Failure) else len(record.scores)
            if len(self._group) >= MOST_ROWS or self._scores >= MOST_SCORES:
                self._write_group()

    def close(self) -> None:
        try:
            if self._group or not self._groups:  # some readers need at least an empty group
                self._write_group()
        finally:
            with arrow_errors():
                self._file.close()

    def _write_group(self) -> None:
        import pyarrow

        group, self._group, self._scores = self._group, [], 0
        self._groups += 1
        with arrow_errors():
            self._file.write_table(pyarrow.Table.from_pylist([_row(record) for record in group], self._file.schema))


def schema() -> "pyarrow.Schema":
    """The columns of a file of records."""
    import pyarrow

    score = pyarrow.struct({"label": pyarrow.string(), "index": pyarrow.int32(), "score": pyarrow.float32()})
    return pyarrow.schema(
        {
            "source": pyarrow.string(),
            "status": pyarrow.string(),
            "predictions": pyarrow.list_(score),
            "error_code": pyarrow.string(),
            "error_message": pyarrow.string(),
        }
    )


@contextmanager
def arrow_errors() -> Iterator[None]:
    """Convert Arrow's own exceptions to OSError, which it also passes on from a stream."""
    import pyarrow

    try:
        yield
    except pyarrow.ArrowException as error:
        raise OSError(str(error)) from error


def _row(record: Record) -> dict[str, Any]:
    if isinstance(record, Failure):
        error = {"error_code": record.code, "error_message": utf8(record.message)}
        return {"source": record.source.name, "status": "error", **error}
    scores = [{"label": utf8(score.label), "index": score.index, "score": score.score} for score in record.scores]
    return {"source": record.source.name, "status": "ok", "predictions": scores}


def utf8(text: str) -> str:
    """The text as the other formats write it: a lone surrogate as an escape."""
    return text.encode("utf-8", "backslashreplace").decode()
