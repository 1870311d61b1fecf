"""Stored results as a run sees them: those that hold under its facts, and their records."""

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Generic, TypeAlias

from beitcli.ledger.codecs import Codec
from beitcli.ledger.database import parsed
from beitcli.ledger.validity import STALE, validity
from beitcli.records import Failure, Identity, ResultRecord, Source

COLUMNS = "kind, source, digest, scores, code, message"
"""The columns of an image from which its record is made."""

Row: TypeAlias = Sequence[Any]

_RECORDS = 100
"""Records read at once: an image's patches may be megabytes."""


class Results(Generic[ResultRecord]):
    """The results of a ledger, for a run whose results depend on `facts`."""

    def __init__(self, database: sqlite3.Connection, facts: Mapping[str, str], codec: Codec[ResultRecord]) -> None:
        self._database = database
        self._codec = codec
        stored = database.execute("SELECT id, facts FROM fingerprints ORDER BY id DESC")
        self._validity = {each: validity(parsed(before), facts) for each, before in stored}

    def holds(self, fingerprint: int | None, scores: str | None, code: str | None, pixels: int | None) -> bool:
        """True if the run would give the stored result, or without one the stored failure."""
        stored = self._validity.get(fingerprint or 0, STALE)
        if scores is not None:
            return stored.of_image(pixels) and self._codec.is_available(scores)
        return stored.of_failure(code or "")

    def of_digest(self, digest: bytes) -> Any | None:
        """The result of an identical image, if it is available."""
        query = "SELECT scores FROM pictures WHERE digest = ? AND fingerprint = ? AND scores IS NOT NULL LIMIT 1"
        for fingerprint in (each for each, stored in self._validity.items() if stored.holds):
            found = self._database.execute(query, (digest, fingerprint)).fetchone()
            if found and self._codec.is_available(found[0]):
                with suppress(sqlite3.DatabaseError):
                    return self._codec.decode(found[0])
        return None

    def digests(self, most: int) -> bytes:
        """8 bytes of the digest of every image with a result that holds; none where there are more than `most`."""
        holding = json.dumps([fingerprint for fingerprint, stored in self._validity.items() if stored.holds])
        query = """SELECT substr(digest, 1, 8) FROM pictures WHERE digest IS NOT NULL AND scores IS NOT NULL
                   AND fingerprint IN (SELECT value FROM json_each(?)) LIMIT ?"""
        found = self._database.execute(query, (holding, most + 1)).fetchall()
        return b"".join(digest for (digest,) in found) if len(found) <= most else b""

    def records(self, rows: Iterable[Row]) -> Iterator[list[ResultRecord | Failure]]:
        """The records of rows of `COLUMNS`, in lists; of an identity only its digest."""
        rest = iter(rows)
        while part := list(islice(rest, _RECORDS)):
            yield [self._record(row) for row in part]

    def _record(self, row: Row) -> ResultRecord | Failure:
        kind, location, digest, scores, code, message = row
        source = Source(os.fsdecode(location), kind)
        if code is not None:
            return Failure(source, code, message)
        return self._codec.to_record(source, Identity(digest=digest), scores)
