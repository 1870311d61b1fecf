"""Strict readers of files of features."""

import csv
import json
import math
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from beitcli.errors import BeitError
from beitcli.outputs.feature_files import INDEX_COLUMNS, Encoded, FeatureFile, features_schema, index_of
from beitcli.outputs.formats import by_suffix
from beitcli.outputs.parquet import arrow_errors
from beitcli.outputs.provenance import Provenance
from beitcli.records import Embedding, Failure, Source, printable

if TYPE_CHECKING:
    import numpy as np

_BATCH_BYTES = 8_000_000
"""Bytes of features that are read from Parquet at once."""


@dataclass(frozen=True, slots=True)
class FeatureReader:
    """A file of features: the shape and dtype of one image's, the number of rows, and the model that Parquet names."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    rows: int
    provenance: Provenance | None = None

    def records(self) -> Iterator[Encoded]:
        """The records in the file's order, of an `.npz` the failures last. Raises BeitError where it is not whole."""
        read = {".npy": self._npy, ".npz": self._npz, ".parquet": self._parquet}[_suffix(self.path)]
        with _reading(self.path):
            yield from read()

    def count(self) -> Iterator[int]:
        """The number of records; of an array those with features."""
        yield self.rows

    def _npy(self) -> Iterator[Encoded]:
        with open(self.path, "rb") as stream, open(index_of(self.path), encoding="utf-8", newline="") as index:
            _header(stream)
            rows = csv.reader(index, strict=True)
            if tuple(next(rows, ())) != INDEX_COLUMNS:
                raise ValueError("its index has not the columns of one")
            number = 0
            for row, name, status, code, message in rows:
                if status == "error":
                    yield Failure(Source.named(name), code, message)
                elif row == str(number):
                    yield Embedding(Source.named(name), self._next(stream))
                    number += 1
                else:
                    raise ValueError(f"its index names row {row} where {number} follows")
            self._check_end(stream, number)

    def _npz(self) -> Iterator[Encoded]:
        with zipfile.ZipFile(self.path) as archive:
            names = _names(archive, "sources")
            with archive.open("features.npy") as stream:
                _header(stream)
                for name in names[: self.rows]:
                    yield Embedding(Source.named(name), self._next(stream))
                self._check_end(stream, len(names))
            failed = (_names(archive, f"failed_{each}") for each in ("sources", "codes", "messages"))
            for name, code, message in zip(*failed, strict=True):
                yield Failure(Source.named(name), code, message)

    def _parquet(self) -> Iterator[Encoded]:
        import numpy as np
        from pyarrow import parquet

        most = max(1, _BATCH_BYTES // self._bytes)
        with arrow_errors(), parquet.ParquetFile(self.path) as file:
            for batch in file.iter_batches(most, use_threads=False):
                features = batch.column("features").flatten().to_numpy(zero_copy_only=False)
                rest = iter(np.ascontiguousarray(features, self.dtype).reshape(-1, *self.shape))
                for row in batch.drop_columns(["features"]).to_pylist():
                    source = Source.named(row["source"])
                    if row["status"] == "ok":
                        yield Embedding(source, next(rest))
                    else:
                        yield Failure(source, row["error_code"], row["error_message"])

    @property
    def _bytes(self) -> int:
        import numpy as np

        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def _next(self, stream: IO[bytes]) -> "np.ndarray[Any, Any]":
        import numpy as np

        data = stream.read(self._bytes)
        if len(data) < self._bytes:
            raise ValueError("the array ends too early")
        return np.frombuffer(data, self.dtype).reshape(self.shape)

    def _check_end(self, stream: IO[bytes], names: int) -> None:
        if names != self.rows or stream.read(1):
            raise ValueError(f"there are {names} names for {self.rows} rows")


def holds_features(path: str) -> bool:
    """True for an `.npy` or `.npz`, and for Parquet with a column of features. Raises BeitError for no Parquet."""
    if _suffix(path) != ".parquet":
        return _suffix(path) in (".npy", ".npz")
    by_suffix(path)  # needs pyarrow
    from pyarrow import parquet

    with _reading(path), arrow_errors():
        return "features" in parquet.read_schema(path).names


def open_features(path: str) -> FeatureReader:
    """Reader of a file that holds features. Raises BeitError where it is not one that was written whole."""
    with _reading(path):
        if _suffix(path) == ".parquet":
            return _of_parquet(path)
        if _suffix(path) == ".npy":
            with open(path, "rb") as stream:
                return _of_array(path, stream)
        with zipfile.ZipFile(path) as archive, archive.open("features.npy") as entry:
            return _of_array(path, entry)


def _of_array(path: str, stream: IO[bytes]) -> FeatureReader:
    (count, *shape), dtype = _header(stream)
    return FeatureReader(path, tuple(shape), dtype, count)


def _of_parquet(path: str) -> FeatureReader:
    from pyarrow import parquet

    with arrow_errors(), parquet.ParquetFile(path) as file:
        schema = file.schema_arrow
        shape = tuple(json.loads((schema.metadata or {}).get(b"shape", b"[]")))
        half = str(schema.field("features").type).startswith("fixed_size_list<element: halffloat")
        found = FeatureFile(path, shape, "float16" if half else "float32")
        if not shape or not schema.equals(features_schema(found)):
            raise ValueError("the columns are not those of a file of features")
        model = Provenance.of_metadata(schema.metadata)
        return FeatureReader(path, shape, found.dtype, file.metadata.num_rows, model)


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], str]:
    """Shape and dtype of the array whose rows follow in the stream. Raises ValueError for one without features."""
    from numpy.lib import format as npy

    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, is_fortran, dtype = read(stream)
    if is_fortran or len(shape) not in (2, 3) or dtype.name not in ("float16", "float32") or not dtype.isnative:
        raise ValueError(f"an array of shape {shape} and type {dtype} holds no features")
    return shape, dtype.name


def _names(archive: zipfile.ZipFile, name: str) -> list[str]:
    from numpy.lib import format as npy

    with archive.open(f"{name}.npy") as stream:
        return [str(each) for each in npy.read_array(stream, allow_pickle=False)]


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Convert the errors of reading to BeitError."""
    try:
        yield
    except (OSError, EOFError, ValueError, KeyError, csv.Error, zipfile.BadZipFile) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        name = os.fsdecode(error.filename) if isinstance(error, OSError) and error.filename else path
        raise BeitError(
            f"cannot read `{printable(name)}`: {printable(reason)}", "is it complete, and written by beit?"
        ) from error


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()
