"""Merging of files of records or features into one, as a single run over all images would write it, and conversion."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Protocol, TypeVar

from beitcli.errors import BeitError, UsageError
from beitcli.jobs.observer import Observer
from beitcli.ledger.feature_store import FeatureCodec, FeatureTexts
from beitcli.outputs.destination import check_writable, is_stream, replaced_file, writing
from beitcli.outputs.feature_files import SUFFIXES, FeatureFile
from beitcli.outputs.feature_readers import FeatureReader, holds_features, open_features
from beitcli.outputs.formats import by_suffix, check_bom
from beitcli.outputs.lock import exclusive
from beitcli.outputs.merging import Each, RecordTexts, Texts, collection
from beitcli.outputs.provenance import common
from beitcli.outputs.readers import RecordReader
from beitcli.outputs.summary import Tally
from beitcli.outputs.writers import Layout, writer
from beitcli.records import Embedding, Failure, Prediction, Record, printable

_ROWS_AT_ONCE = 1000
_FEATURES_AT_ONCE = 10


@dataclass(frozen=True, slots=True)
class Merged:
    """Counts of the rows written, of the equal ones left out, and of the errors that another part replaced."""

    tally: Tally
    equal: int = 0
    overruled: int = 0


def merge(out: str, parts: list[str], observer: Observer, bom: bool = False) -> Merged:
    """Replace `out` by the records of all parts, sorted as a folder walk is, in the formats of their suffixes.

    A single part is converted: its records keep their order. All parts hold records, or all hold features. With `bom`,
    a CSV or TSV begins with a byte order mark. Raises UsageError for parts that are no files or do not fit, BeitError
    for two different results of one image, OutputError where `out` cannot be written; it is then unchanged.
    """
    for path in parts:
        _check_is_file(path)
    with_features = [path for path in parts if holds_features(path)]
    if not with_features:
        return _merge_records(out, parts, observer, bom)
    others = set(parts) - set(with_features)
    if others:
        one, other = printable(with_features[0]), printable(min(others))
        raise UsageError(f"`{one}` holds features and `{other}` records", "merge either apart")
    if bom:
        check_bom("features")
    return _merge_features(out, parts, observer)


def _merge_records(out: str, parts: list[str], observer: Observer, bom: bool) -> Merged:
    if out.lower().endswith(SUFFIXES[:2]):
        raise UsageError(f"`{printable(out)}` holds features, and `{printable(parts[0])}` records")
    file_format = by_suffix(out)
    if bom:
        check_bom(file_format.name)
    readers = [RecordReader(path, *by_suffix(path)) for path in parts]
    _check_output([out])

    def write(_: int, records: Iterator[list[Record]]) -> None:
        columns = max(reader.columns for reader in readers)
        model = common([reader.provenance for reader in readers])
        layout = Layout(file_format.name, columns, file_format.gzip, bom=bom, provenance=model)
        with replaced_file(out, keeps_part=False) as stream, writer(stream, layout) as rows:
            for some in records:
                with writing():
                    rows.write(some)

    with exclusive(out, wait=False):
        return _merge(readers, RecordTexts(), write, _ROWS_AT_ONCE, observer)


def _merge_features(out: str, parts: list[str], observer: Observer) -> Merged:
    if not out.lower().endswith(SUFFIXES):
        raise UsageError(f"`{printable(parts[0])}` holds features", f"write them to one of {', '.join(SUFFIXES)}")
    if out.lower().endswith(".parquet"):
        by_suffix(out)  # needs pyarrow
    readers = [open_features(path) for path in parts]
    first = readers[0]
    for reader in readers:
        if (reader.shape, reader.dtype) != (first.shape, first.dtype):
            one, other = (f"{_kind(each)} in `{printable(each.path)}`" for each in (first, reader))
            raise BeitError(
                f"features of {one}, of {other}",
                "merge only the features of one model with one set of options",
            )
    file = FeatureFile(out, first.shape, first.dtype)
    _check_output(file.outputs)
    with (
        exclusive(out, wait=False),
        closing(FeatureCodec(None, os.path.realpath(out), first.shape, first.dtype)) as codec,
    ):
        write = partial(file.write, provenance=common([reader.provenance for reader in readers]))
        return _merge(readers, FeatureTexts(codec), write, _FEATURES_AT_ONCE, observer)


def _kind(reader: FeatureReader) -> str:
    return f"{' × '.join(map(str, reader.shape))} {reader.dtype}"


_Read = TypeVar("_Read", bound=Prediction | Embedding | Failure, covariant=True)


class _Reader(Protocol[_Read]):
    """A part: its path and records, and their number, read at a fraction of the cost."""

    @property
    def path(self) -> str: ...
    def records(self) -> Iterator[_Read]: ...
    def count(self) -> Iterator[int]: ...


def _merge(
    readers: Sequence[_Reader[Each]],
    texts: Texts[Each],
    write: Callable[[int, Iterator[list[Each]]], None],
    at_once: int,
    observer: Observer,
) -> Merged:
    """Read all parts and write their records; `write` takes the number of those that are no failures first."""
    tally = Tally()

    def in_lists(records: Iterator[Each]) -> Iterator[list[Each]]:
        while some := list(islice(records, at_once)):
            yield some
            tally.add(some)
            observer.progress(len(some))

    observer.stage("reading", unit="rows")
    observer.countable(lambda: chain.from_iterable(reader.count() for reader in readers))
    if len(readers) == 1:
        successes = rows = 0
        for record in _reporting(readers[0].records(), observer):
            rows += 1
            successes += not isinstance(record, Failure)
        observer.stage("writing", rows, "rows")
        write(successes, in_lists(readers[0].records()))
        return Merged(tally)
    with collection(texts) as collected:
        for reader in readers:
            collected.add(_reporting(reader.records(), observer), reader.path)
        observer.stage("writing", collected.size, "rows")
        write(collected.successes, in_lists(collected.in_order()))
        return Merged(tally, collected.equal, collected.overruled)


def _reporting(records: Iterator[Each], observer: Observer) -> Iterator[Each]:
    number = 0
    for number, record in enumerate(records, 1):
        yield record
        if number % _ROWS_AT_ONCE == 0:
            observer.progress(_ROWS_AT_ONCE)
    observer.progress(number % _ROWS_AT_ONCE)


def _check_is_file(path: str) -> None:
    if not os.path.exists(path):
        raise UsageError(f"`{printable(path)}` does not exist")
    if not os.path.isfile(path):
        raise UsageError(f"`{printable(path)}` is no file", "name files written by `beit batch` or `beit embed`")


def _check_output(paths: Iterable[str]) -> None:
    for path in paths:
        if is_stream(path):
            raise UsageError(f"`{printable(path)}` is a FIFO or device", "name a file")
        check_writable(path)
