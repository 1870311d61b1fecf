"""The features in a ledger: `FILE.ledger-features`, one behind the other, and where each is."""

import json
import math
import os
import sqlite3
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from beitcli.outputs.destination import writing
from beitcli.outputs.ledger import parsed
from beitcli.records import Embedding, Identity, Source, printable

if TYPE_CHECKING:
    import numpy as np


class Vectors:
    """Features of one shape and dtype in a file, which is made when there are any; the ledger has `[offset, CRC-32]`.

    They only ever come behind what is there: where a run ends between this file and the ledger, the ledger never knows
    of them. A machine's crash may lose what the ledger knows of, which the checksum tells. Without a path they are in
    memory's stead in a file without a name.
    """

    def __init__(self, path: str | None, beside: str, shape: tuple[int, ...], dtype: str) -> None:
        self._path = path
        self._beside = beside
        self._shape = shape
        self._dtype = dtype
        self._size = math.prod(shape) * {"float16": 2, "float32": 4}[dtype]
        self._length: int | None = None
        self._descriptor: int | None = None

    def holds(self, text: str) -> bool:
        """Whether the file was long enough, when the run began, to have these features."""
        if self._length is None:
            self._length = 0
            with suppress(OSError):
                self._length = os.path.getsize(self._path or "")
        try:
            offset, _ = parsed(text)
            return bool(offset + self._size <= self._length)
        except (TypeError, ValueError):
            return False

    def text(self, record: Embedding) -> str:
        data = record.features.astype(self._dtype, copy=False).tobytes()
        with writing():
            file = self._opened()
            offset = os.lseek(file, 0, os.SEEK_END)
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(file, rest) :]
        return json.dumps([offset, zlib.crc32(data)])

    def answer(self, text: str) -> "np.ndarray[Any, Any]":
        import numpy as np

        try:
            offset, checksum = parsed(text)
            data = os.pread(self._opened(), self._size, offset)
        except (TypeError, ValueError, OSError) as error:
            raise sqlite3.DatabaseError(f"features that are none: {text}") from error
        if zlib.crc32(data) != checksum:
            raise sqlite3.DatabaseError(f"`{printable(self._path or '')}` is not what it was")
        return np.frombuffer(data, self._dtype).reshape(self._shape)

    def record(self, source: Source, identity: Identity, text: str) -> Embedding:
        return Embedding(source, self.answer(text), identity)

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
