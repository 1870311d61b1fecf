"""Features of a ledger, in sequence in `FILE.ledger-features`, with the offset of each in the ledger."""

import json
import math
import os
import shutil
import sqlite3
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from beitcli.ledger.database import parsed
from beitcli.outputs.destination import writing
from beitcli.records import Embedding, Failure, Identity, Source, printable

if TYPE_CHECKING:
    import numpy as np


class FeatureCodec:
    """Codec of features of one shape and dtype in a file, created on first use; the ledger has `[offset, CRC-32]`.

    The file is only appended to: features written before an interrupted commit are not in the ledger and ignored. A
    crash of the machine may lose features that are in the ledger, which the checksum detects. Without a path they are
    in a temporary file beside `beside`.
    """

    def __init__(self, path: str | None, beside: str, shape: tuple[int, ...], dtype: str) -> None:
        self._path = path
        self._beside = beside
        self._shape = shape
        self._dtype = dtype
        self._size = math.prod(shape) * {"float16": 2, "float32": 4}[dtype]
        self._length: int | None = None
        self._descriptor: int | None = None

    def is_available(self, text: str) -> bool:
        """True if the file was long enough to hold these features when the run began, or last added to it."""
        if self._length is None:
            self._length = 0
            with suppress(OSError):
                self._length = os.path.getsize(self._path or "")
        try:
            offset, _ = parsed(text)
            return bool(offset + self._size <= self._length)
        except (TypeError, ValueError):
            return False

    def encode(self, record: Embedding) -> str:
        data = record.features.astype(self._dtype, copy=False).tobytes()
        with writing():
            file = self._opened()
            offset = os.lseek(file, 0, os.SEEK_END)
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(file, rest) :]
        self._length = offset + self._size
        return json.dumps([offset, zlib.crc32(data)])

    def decode(self, text: str) -> "np.ndarray[Any, Any]":
        import numpy as np

        try:
            offset, checksum = parsed(text)
            data = os.pread(self._opened(), self._size, offset)
        except (TypeError, ValueError, OSError) as error:
            raise sqlite3.DatabaseError(f"invalid features: {text}") from error
        if zlib.crc32(data) != checksum:
            raise sqlite3.DatabaseError(f"`{printable(self._path or '')}` is not what it was")
        return np.frombuffer(data, self._dtype).reshape(self._shape)

    def to_record(self, source: Source, identity: Identity, text: str) -> Embedding:
        return Embedding(source, self.decode(text), identity)

    def adopt(self, ledger: str, copies: bool) -> None:
        """Take over the features of another ledger. Raises OutputError where they cannot be copied."""
        features = f"{ledger}-features"
        if copies and self._path is not None:
            with writing(), suppress(FileNotFoundError):
                shutil.copyfile(features, self._path)
        else:
            with suppress(OSError):
                self._length = os.path.getsize(features)

    def layout(self) -> dict[str, Any]:
        """Shape and dtype of the features of one image."""
        return {"shape": self._shape, "dtype": self._dtype}

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def _opened(self) -> int:
        if self._descriptor is None:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            if self._path is not None:
                self._descriptor = os.open(self._path, flags | os.O_NOFOLLOW, 0o666)
            else:
                name = f"{self._beside}.part"
                self._descriptor = os.open(name, flags | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
                os.unlink(name)
        return self._descriptor


class FeatureTexts:
    """Codec of features and failures in a collection: JSON, the features themselves by `codec` in its file."""

    results = "features"

    def __init__(self, codec: FeatureCodec) -> None:
        self._codec = codec

    def encode(self, record: Embedding | Failure) -> str:
        if isinstance(record, Failure):
            return json.dumps([record.source.name, [record.code, record.message]])
        return json.dumps([record.source.name, self._codec.encode(record)])

    def decode(self, text: str) -> Embedding | Failure:
        name, result = parsed(text)
        source = Source.named(name)
        return Failure(source, *result) if isinstance(result, list) else Embedding(source, self._codec.decode(result))

    def are_equal(self, one: str, other: str) -> bool:
        if one == other:
            return True
        first, second = self.decode(one), self.decode(other)
        if isinstance(first, Failure) or isinstance(second, Failure):
            return False
        return first.features.tobytes() == second.features.tobytes()
