"""Records from many files, each source once, in the order of a folder walk."""

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Generic, Protocol, TypeVar

from beitcli.errors import BeitError, OutputError
from beitcli.outputs.jsonl import record_of
from beitcli.records import Embedding, Failure, Prediction, Source, printable

Each = TypeVar("Each", bound=Prediction | Embedding | Failure)


class Texts(Protocol[Each]):
    """Codec of records in a collection: record <-> text, and the equality of two texts; `results` is their plural."""

    results: str

    def encode(self, record: Each) -> str: ...
    def decode(self, text: str) -> Each: ...
    def are_equal(self, one: str, other: str) -> bool: ...


class RecordTexts:
    """Codec of predictions and failures: the JSON object of each."""

    results = "predictions"

    def encode(self, record: Prediction | Failure) -> str:
        return json.dumps(record.as_dict())

    def decode(self, text: str) -> Prediction | Failure:
        return record_of(json.loads(text))

    def are_equal(self, one: str, other: str) -> bool:
        return one == other


class Collection(Generic[Each]):
    """Sorted store of records; `equal` and `overruled` count those that are left out.

    It is a database on disk, because the records may exceed memory.
    """

    def __init__(self, database: sqlite3.Connection, texts: Texts[Each]) -> None:
        self.equal = 0
        self.overruled = 0
        self._database = database
        self._texts = texts
        self._parts: list[str] = []
        database.execute("CREATE TABLE records (key BLOB PRIMARY KEY, failed INTEGER, part INTEGER, record TEXT)")

    def add(self, records: Iterable[Each], part: str) -> None:
        """Add the records of the file `part`: the first of equal ones, a prediction before an error.

        Raises BeitError where a source already has a different prediction.
        """
        self._parts.append(part)
        for record in records:
            self._add(record.source, isinstance(record, Failure), self._texts.encode(record))

    @property
    def size(self) -> int:
        """The number of records in the store."""
        [count] = self._database.execute("SELECT count(*) FROM records").fetchone()
        return int(count)

    @property
    def successes(self) -> int:
        """The number of records in the store that are no failures."""
        [count] = self._database.execute("SELECT count(*) FROM records WHERE NOT failed").fetchone()
        return int(count)

    def in_order(self) -> Iterator[Each]:
        for (record,) in self._database.execute("SELECT record FROM records ORDER BY key"):
            yield self._texts.decode(record)

    def _add(self, source: Source, failed: bool, record: str) -> None:
        key, row = _key(source), (failed, len(self._parts) - 1, record)
        known = self._database.execute("SELECT failed, part, record FROM records WHERE key = ?", (key,)).fetchone()
        if known is None:
            self._database.execute("INSERT INTO records VALUES (?, ?, ?, ?)", (key, *row))
        elif failed == known[0] and self._texts.are_equal(known[2], record):
            self.equal += 1
        elif failed or known[0]:
            self.overruled += 1
            if not failed:
                self._database.execute("UPDATE records SET failed = ?, part = ?, record = ? WHERE key = ?", (*row, key))
        else:
            one, other = printable(self._parts[known[1]]), printable(self._parts[-1])
            raise BeitError(
                f"different {self._texts.results} for `{printable(source.name)}` in `{one}` and `{other}`",
                f"merge only the {self._texts.results} of one model with one set of options",
            )


@contextmanager
def collection(texts: Texts[Each]) -> Iterator[Collection[Each]]:
    """An empty collection, in a temporary file. Raises OutputError where that cannot be written."""
    try:
        with closing(sqlite3.connect("")) as database:
            yield Collection(database, texts)
    except sqlite3.Error as error:
        raise OutputError(
            f"cannot sort the records: {error}", "make room for temporary files, or name a folder for them by TMPDIR"
        ) from error


def _key(source: Source) -> bytes:
    """Sort key in the order of a folder walk: NUL between names sorts before every byte of a name, `/` does not."""
    return os.fsencode(source.location).replace(b"/", b"\0")
