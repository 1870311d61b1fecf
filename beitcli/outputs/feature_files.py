"""Features in a file, in input order: a NumPy array, or Parquet."""

import itertools
import json
import math
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, BinaryIO, TypeAlias

from beitcli.errors import UsageError
from beitcli.file_system import sync
from beitcli.outputs.delimited import csv_line
from beitcli.outputs.destination import replaced_file, writing
from beitcli.outputs.formats import by_suffix
from beitcli.outputs.parquet import MOST_ROWS, arrow_errors, utf8
from beitcli.outputs.provenance import Provenance
from beitcli.outputs.writers import text_in
from beitcli.records import Embedding, Failure, printable

if TYPE_CHECKING:
    import pyarrow

Encoded: TypeAlias = Embedding | Failure

SUFFIXES = (".npy", ".npz", ".parquet")

INDEX_COLUMNS = ("row", "source", "status", "error_code", "error_message")

_GROUP_BYTES = 32_000_000
"""Bytes of features in a group of Parquet rows, which is held in memory until it is full."""

_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)  # a fixed date, so that the same features give the same bytes


@dataclass(frozen=True, slots=True)
class FeatureFile:
    """A file of features: its format by the suffix of `path`, and the shape and dtype of one image's."""

    path: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def outputs(self) -> tuple[str, ...]:
        """The files that are written."""
        return (self.path, index_of(self.path)) if self.path.lower().endswith(".npy") else (self.path,)

    def write(self, count: int, records: Iterator[list[Encoded]], provenance: Provenance | None = None) -> None:
        """Write all records, `count` of them with features; complete or not at all. Raises OutputError.

        Only Parquet names their provenance.
        """
        kind = os.path.splitext(self.path)[1].lower()
        with replaced_file(self.path, keeps_part=False) as stream:
            if kind == ".parquet":
                _write_parquet(self, stream, records, provenance)
            else:
                write = {".npy": _write_npy, ".npz": _write_npz}[kind]
                write(self, stream, count, records)


def check_suffix(path: str) -> None:
    """Raise UsageError for the name of a file that cannot hold features."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in SUFFIXES:
        raise UsageError(
            f"`{printable(path)}`: features have no format `{printable(suffix)}`", f"one of {', '.join(SUFFIXES)}"
        )
    if suffix == ".parquet":
        by_suffix(path)  # needs pyarrow


def index_of(path: str) -> str:
    """The table beside an `.npy` that names the source of each row."""
    return f"{path}.index.csv"


def _write_npy(file: FeatureFile, stream: BinaryIO, count: int, records: Iterable[list[Encoded]]) -> None:
    """The array, and beside it a table with a row for each image, where failures have no row number."""
    with replaced_file(index_of(file.path), keeps_part=False) as beside, text_in(beside) as text, writing():
        text.write(csv_line(INDEX_COLUMNS))
        _write_array(file, stream, count, _indexed(records, text.write))
        stream.flush()
        sync(stream.fileno())  # now, so that both files are renamed at the same moment


def _indexed(records: Iterable[list[Encoded]], write: Callable[[str], object]) -> Iterator[Embedding]:
    """The images with features; a line for each record is passed to `write`."""
    numbers = itertools.count()
    for record in itertools.chain.from_iterable(records):
        if isinstance(record, Failure):
            write(csv_line(("", record.source.name, "error", record.code, record.message)))
        else:
            write(csv_line((str(next(numbers)), record.source.name, "ok", "", "")))
            yield record


def _write_npz(file: FeatureFile, stream: BinaryIO, count: int, records: Iterable[list[Encoded]]) -> None:
    """`features`, `sources` with the name of each row, and `failed_sources`, `failed_codes`, `failed_messages`."""
    names: dict[str, list[str]] = {"sources": [], "failed_sources": [], "failed_codes": [], "failed_messages": []}
    with writing(), zipfile.ZipFile(stream, "w") as archive:
        with _entry(archive, "features") as entry:
            _write_array(file, entry, count, _named(records, names))
        for name, values in names.items():
            with _entry(archive, name) as entry:
                _write_names(entry, values)


def _named(records: Iterable[list[Encoded]], names: dict[str, list[str]]) -> Iterator[Embedding]:
    """The images with features; each record's names are appended to `names`."""
    for record in itertools.chain.from_iterable(records):
        if isinstance(record, Failure):
            names["failed_sources"].append(record.source.name)
            names["failed_codes"].append(record.code)
            names["failed_messages"].append(record.message)
        else:
            names["sources"].append(record.source.name)
            yield record


def _entry(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    return archive.open(zipfile.ZipInfo(f"{name}.npy", _ZIP_EPOCH), "w", force_zip64=True)


def _write_array(file: FeatureFile, stream: IO[bytes], count: int, embeddings: Iterator[Embedding]) -> None:
    import numpy as np

    dtype = np.dtype(file.dtype)
    header = {"descr": dtype.str, "fortran_order": False, "shape": (count, *file.shape)}
    np.lib.format.write_array_header_1_0(stream, header)
    for embedding in embeddings:
        stream.write(np.ascontiguousarray(embedding.features, dtype).data)


def _write_names(stream: IO[bytes], names: list[str]) -> None:
    import numpy as np

    np.lib.format.write_array(stream, np.array(names, dtype=str), allow_pickle=False)


def _write_parquet(
    file: FeatureFile, stream: BinaryIO, records: Iterable[list[Encoded]], provenance: Provenance | None
) -> None:
    """`source`, `status`, `features` (a list of fixed size; patches in sequence), error code and message."""
    from pyarrow import parquet

    schema = features_schema(file, provenance.metadata() if provenance else None)
    with writing(), arrow_errors(), parquet.ParquetWriter(stream, schema, compression="zstd") as rows:
        for group in _groups(file, itertools.chain.from_iterable(records)):
            rows.write_table(_table(file, group, schema))


def _groups(file: FeatureFile, records: Iterable[Encoded]) -> Iterator[list[Encoded]]:
    """Groups of rows that fit in memory; at least one, which may be empty."""
    import numpy as np

    size = max(1, min(MOST_ROWS, _GROUP_BYTES // (math.prod(file.shape) * np.dtype(file.dtype).itemsize)))
    rest = iter(records)
    yield list(itertools.islice(rest, size))
    while group := list(itertools.islice(rest, size)):
        yield group


def features_schema(file: FeatureFile, metadata: Mapping[str, str] | None = None) -> "pyarrow.Schema":
    """The columns of a Parquet file of features."""
    import pyarrow

    number = pyarrow.float16() if file.dtype == "float16" else pyarrow.float32()
    columns = {
        "source": pyarrow.string(),
        "status": pyarrow.string(),
        "features": pyarrow.list_(number, math.prod(file.shape)),
        "error_code": pyarrow.string(),
        "error_message": pyarrow.string(),
    }
    return pyarrow.schema(columns, {"shape": json.dumps(file.shape), **(metadata or {})})


def _table(file: FeatureFile, group: list[Encoded], schema: "pyarrow.Schema") -> "pyarrow.Table":
    import numpy as np
    import pyarrow

    failures = [record if isinstance(record, Failure) else None for record in group]
    none = np.zeros(file.shape, file.dtype)
    features = [none if isinstance(record, Failure) else record.features for record in group]
    values = np.stack(features).ravel() if features else np.empty(0, file.dtype)
    columns = [
        [record.source.name for record in group],
        ["error" if failure else "ok" for failure in failures],
        pyarrow.FixedSizeListArray.from_arrays(
            pyarrow.array(values),
            type=schema.field("features").type,
            mask=pyarrow.array([failure is not None for failure in failures], pyarrow.bool_()),
        ),
        [failure and failure.code for failure in failures],
        [failure and utf8(failure.message) for failure in failures],
    ]
    return pyarrow.table(columns, schema=schema)
