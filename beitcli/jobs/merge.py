"""Merging of files of records into one, as a single run over all images would write it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice

from beitcli.errors import UsageError
from beitcli.jobs.observer import Observer
from beitcli.outputs.destination import check_writable, is_stream, replaced_file, writing
from beitcli.outputs.formats import by_suffix, check_bom
from beitcli.outputs.lock import exclusive
from beitcli.outputs.merging import Collection, collection
from beitcli.outputs.readers import RecordReader
from beitcli.outputs.summary import Tally
from beitcli.outputs.writers import Layout, writer
from beitcli.records import Record, printable

_ROWS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Merged:
    """Counts of the rows written, of the equal ones left out, and of the errors that another part replaced."""

    tally: Tally
    equal: int
    overruled: int


def merge(out: str, parts: list[str], observer: Observer, bom: bool = False) -> Merged:
    """Replace `out` by the records of all parts, sorted as a folder walk is, in the formats of their suffixes.

    With `bom`, a CSV or TSV begins with a byte order mark.
    Raises UsageError for parts that are no files, BeitError for two different predictions of one image, OutputError
    where `out` cannot be written; it is then unchanged.
    """
    file_format = by_suffix(out)
    if bom:
        check_bom(file_format.name)
    readers = [_reader(path) for path in parts]
    if is_stream(out):
        raise UsageError(f"`{printable(out)}` is a FIFO or device", "name a file")
    check_writable(out)
    with exclusive(out, wait=False), collection() as collected:
        observer.stage("reading", unit="rows")
        observer.countable(lambda: chain.from_iterable(reader.count() for reader in readers))
        for reader in readers:
            collected.add(_reporting(reader.records(), observer), reader.path)
        columns = max(reader.columns for reader in readers)
        observer.stage("writing", collected.size, "rows")
        tally = _write(out, Layout(file_format.name, columns, file_format.gzip, bom=bom), collected, observer)
        return Merged(tally, collected.equal, collected.overruled)


def _reporting(records: Iterator[Record], observer: Observer) -> Iterator[Record]:
    number = 0
    for number, record in enumerate(records, 1):
        yield record
        if number % _ROWS_AT_ONCE == 0:
            observer.progress(_ROWS_AT_ONCE)
    observer.progress(number % _ROWS_AT_ONCE)


def _reader(path: str) -> RecordReader:
    if not os.path.exists(path):
        raise UsageError(f"`{printable(path)}` does not exist")
    if not os.path.isfile(path):
        raise UsageError(f"`{printable(path)}` is no file", "name files written by `beit batch`")
    return RecordReader(path, *by_suffix(path))


def _write(out: str, layout: Layout, collected: Collection, observer: Observer) -> Tally:
    tally, records = Tally(), collected.in_order()
    with replaced_file(out, keeps_part=False) as stream, writer(stream, layout) as rows:
        while some := list(islice(records, _ROWS_AT_ONCE)):
            with writing():
                rows.write(some)
            tally.add(some)
            observer.progress(len(some))
    return tally
