"""Output files of any format: do they hold a row?"""

import gzip
import os
import zlib
from typing import BinaryIO, cast

_GZIP, _PARQUET, _NUMPY, _ZIP = b"\x1f\x8b", b"PAR1", b"\x93NUMPY", b"PK"


def has_rows(path: str) -> bool:
    """True if the file holds a record or features, or is none of the formats; False for a header alone, or no file."""
    try:
        if not os.path.isfile(path):
            return False
        with open(path, "rb") as stream:
            start = stream.read(len(_NUMPY))
        if start.startswith((_NUMPY, _ZIP)):
            return _has_features(path)
        if start.startswith(_PARQUET):
            from pyarrow import parquet

            return bool(parquet.read_metadata(path).num_rows)
        with cast(BinaryIO, gzip.open(path) if start.startswith(_GZIP) else open(path, "rb")) as stream:
            return stream.readline().startswith(b"{") or bool(stream.read(1))
    except (OSError, EOFError, zlib.error, ValueError, ImportError):
        return True


def _has_features(path: str) -> bool:
    import numpy

    loaded = numpy.load(path, mmap_mode="r")
    if isinstance(loaded, numpy.ndarray):
        return bool(len(loaded))
    with loaded:
        return any(len(loaded[name]) for name in ("sources", "failed_sources"))
