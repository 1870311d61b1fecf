"""Records -> bytes of a stream, in the requested format."""

import gzip
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol, cast

from beitcli.outputs.delimited import BOM, CsvWriter, TsvWriter
from beitcli.outputs.destination import closed, writing
from beitcli.outputs.jsonl import JsonlWriter
from beitcli.outputs.provenance import Provenance
from beitcli.records import Record

_LEVEL = 6  # gzip's own default; Python's takes twice the time for a hundredth of the size


class Writer(Protocol):
    """Interface of a format: writes a header when created, then rows, flushed after each call except in Parquet."""

    def write(self, records: Iterable[Record]) -> None: ...


@dataclass(frozen=True, slots=True)
class Layout:
    """Format of a file of records, its number of labels a row, its compression, and a mark of UTF-8 at its start.

    Only Parquet names the `provenance`.
    """

    format: str
    columns: int
    gzip: bool = False
    colored: bool | None = None
    bom: bool = False
    provenance: Provenance | None = field(default=None, repr=False)


@contextmanager
def writer(stream: BinaryIO, layout: Layout) -> Iterator[Writer]:
    """A writer to the stream; its buffer is written when the block ends well. Raises OutputError."""
    if layout.format == "parquet":
        from beitcli.outputs.parquet import ParquetWriter

        with writing():
            file = ParquetWriter(stream, layout.provenance.metadata() if layout.provenance else {})
        with closed(file):
            yield file
        return
    compressed = _compressed(stream) if layout.gzip else nullcontext(stream)
    with compressed as binary, text_in(binary) as text:
        if layout.bom:
            text.write(BOM)
        if layout.format == "table":
            from beitcli.outputs.table import TableWriter

            yield TableWriter(text, layout.colored)
        elif layout.format == "jsonl":
            yield JsonlWriter(text)
        else:
            yield (CsvWriter if layout.format == "csv" else TsvWriter)(text, layout.columns)


@contextmanager
def text_in(binary: BinaryIO) -> Iterator[io.TextIOWrapper]:
    """UTF-8 with `\\n` line ends, whatever the locale; the stream below stays open."""
    text = io.TextIOWrapper(binary, encoding="utf-8", errors="backslashreplace", newline="")
    try:
        yield text
    except BaseException:
        with suppress(OSError):
            text.detach()
        raise
    with writing():
        text.detach()


@contextmanager
def _compressed(binary: BinaryIO) -> Iterator[BinaryIO]:
    """A gzip stream whose header has neither name nor time, so that the same records give the same bytes.

    Buffered, because a GzipFile that is flushed with every row does not compress.
    """
    compressor = gzip.GzipFile("", "wb", _LEVEL, fileobj=binary, mtime=0)
    with closed(io.BufferedWriter(cast(io.RawIOBase, compressor))) as buffered:
        yield buffered
