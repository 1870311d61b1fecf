"""The memory of a batch run, `FILE.ledger`: what was asked for in which order, and every answer so far."""

import hashlib
import json
import logging
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple

from beitcli.outputs.summary import Tally
from beitcli.records import Failure, Found, Identity, Prediction, Record, Score, Source

log = logging.getLogger(__name__)

State = Literal["new", "changed", "to retry", "up to date"]
"""How a picture stands to its answer."""

LASTING = frozenset({"empty_file", "not_an_image", "truncated", "corrupt", "too_large", "unsupported"})
"""Failures that an unchanged picture keeps, as it does `http_4NN`, but for `PASSING`."""

PASSING = frozenset({"http_408", "http_425", "http_429"})
MOST_CRASHES = 2
"""How often an unchanged picture may crash its decoder before it is left alone: once may be bad luck."""

_RECORDS = 1000
"""How many records are read at once."""


@dataclass(frozen=True, slots=True)
class Again:
    """What is asked again though it has an answer: every failure, and URLs, in case they have changed."""

    errors: bool = False
    urls: bool = False


class _Row(NamedTuple):
    """What the ledger has of one picture."""

    id: int
    size: int | None = None
    mtime_ns: int | None = None
    etag: str | None = None
    last_modified: str | None = None
    fingerprint: int | None = None
    code: str | None = None
    crashes: int = 0
    asked: int | None = None
    answered: int | None = None

    @property
    def lasts(self) -> bool:
        """Whether the answer is that of an unchanged picture for as long as it is unchanged."""
        if self.code is None or self.code in LASTING:
            return True
        if self.code == "decoder_crashed":
            return self.crashes >= MOST_CRASHES
        return self.code.startswith("http_4") and self.code not in PASSING


class Ledger:
    """One run on a ledger. Only `add`, `prune` and `wrote` keep what has happened until then."""

    def __init__(self, database: sqlite3.Connection, facts: Mapping[str, str], labels: Sequence[str]) -> None:
        self._execute = database.execute
        self._facts = facts
        self._labels = labels
        self._execute("BEGIN")
        self._run = 1 + (self._state("runs") or 0)
        self._set_state("runs", self._run)
        text = json.dumps(facts, sort_keys=True)
        self._execute("INSERT OR IGNORE INTO fingerprints (facts) VALUES (?)", (text,))
        [self._fingerprint] = self._execute("SELECT id FROM fingerprints WHERE facts = ?", (text,)).fetchone()
        self._asked = 0
        self._order = hashlib.sha256()
        self._has_told = False
        self._dtype: str | None = None

    def runs_in(self, dtype: str) -> None:
        """From now on answers are given in this dtype."""
        self._dtype = dtype

    def decided(self, question: str, answer: bool) -> bool:
        """What the first run of this ledger decided; this answer, if no run has been asked before."""
        if self._state(question) is None:
            self._set_state(question, answer)
        return bool(self._state(question))

    def pending(self, found: Iterable[Found], again: Again, states: Counter[State]) -> Iterator[Source]:
        """What of it needs an answer. Notes the order of all that was found, and counts in `states` how each stands."""
        for item in found:
            source = item.source if isinstance(item, Failure) else item
            row = self._row(source)
            self._place(row.id)
            state = self._state_of(item, row, again)
            states[state] += 1
            if row.asked == self._run:  # named twice
                continue
            refreshed = again.urls and source.kind == "url" and state == "up to date"
            if state == "up to date" and not refreshed:
                continue
            self._execute("UPDATE pictures SET asked = ? WHERE id = ?", (self._run, row.id))
            if isinstance(item, Failure):
                self._store(item)
            else:
                known = Identity(etag=row.etag, last_modified=row.last_modified) if refreshed else source.known
                yield replace(source, known=known)
        self._execute("DELETE FROM run WHERE position >= ?", (self._asked,))

    def add(self, records: Iterable[Record]) -> None:
        """Keeps the records, whatever happens from here."""
        for record in records:
            self._store(record)
        self._commit()

    def scores_of(self, digest: bytes) -> tuple[Score, ...] | None:
        """The scores of an identical picture, if it has an answer."""
        query = "SELECT scores FROM pictures WHERE digest = ? AND fingerprint = ? AND scores IS NOT NULL LIMIT 1"
        found = self._execute(query, (digest, self._fingerprint)).fetchone()
        return found and self._scores(found[0])

    def count(self, tally: Tally) -> None:
        """Makes the tally of this run's work one of all that was asked for."""
        query = """SELECT code, answered = ?, count(*) FROM run JOIN pictures ON id = picture
                   WHERE answered > 0 AND position < ? GROUP BY 1, 2"""
        tally.failed.clear()
        tally.reused = -tally.decoded
        for code, is_new, count in self._execute(query, (self._run, self._asked)).fetchall():
            if code is not None:
                tally.failed[code] += count
            elif is_new:
                tally.reused += count
            else:
                tally.kept += count

    def records(self) -> Iterator[list[Record]]:
        """The answers to all that was asked for, in its order and in lists."""
        query = """SELECT kind, source, scores, code, message FROM run JOIN pictures ON id = picture
                   WHERE answered > 0 ORDER BY position"""
        rows = self._execute(query)
        while part := rows.fetchmany(_RECORDS):
            yield [self._record(row) for row in part]

    def gone(self) -> int:
        """How many answers there are to what is not asked for any more."""
        query = f"SELECT count(*) FROM pictures WHERE {_GONE} AND answered > 0 AND kind != 'stdin'"  # noqa: S608
        return int(self._execute(query).fetchone()[0])

    def prune(self) -> None:
        """Forgets what is not asked for any more."""
        self._execute(f"DELETE FROM pictures WHERE {_GONE}")  # noqa: S608  # a constant
        self._commit()

    def is_written(self, path: str, appearance: str) -> bool:
        """Whether the file is still what this ledger wrote of these very answers, in this order and appearance."""
        return os.path.exists(path) and self._state("written") == self._written(path, appearance)

    def wrote(self, path: str, appearance: str) -> None:
        """Remembers that the file is what the ledger says."""
        self._set_state("written", self._written(path, appearance))
        self._execute("DELETE FROM pictures WHERE kind = 'stdin'")  # other bytes next time
        self._commit()

    def _commit(self) -> None:
        self._execute("COMMIT")
        self._execute("BEGIN")

    def _state(self, key: str) -> Any:
        found = self._execute("SELECT value FROM state WHERE key = ?", (key,)).fetchone()
        return found and found[0]

    def _set_state(self, key: str, value: object) -> None:
        self._execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (key, value))

    def _row(self, source: Source) -> _Row:
        query = f"SELECT {', '.join(_Row._fields)} FROM pictures WHERE kind = ? AND source = ?"  # noqa: S608
        found = self._execute(query, _key(source)).fetchone()
        if found:
            return _Row(*found)
        return _Row(self._execute("INSERT INTO pictures (kind, source) VALUES (?, ?)", _key(source)).lastrowid or 0)

    def _place(self, picture: int) -> None:
        """Notes what is asked for next. A page of the database is only touched where that is not what it was."""
        self._execute(_PLACE, (self._asked, picture))
        self._order.update(picture.to_bytes(8, "big"))
        self._asked += 1

    def _state_of(self, item: Found, row: _Row, again: Again) -> State:
        if row.answered is None or (isinstance(item, Source) and item.kind == "stdin"):
            return "new"
        if row.code is not None and (again.errors or not row.lasts):
            return "to retry"
        if isinstance(item, Failure):
            return "up to date" if item.code == row.code else "changed"
        if row.fingerprint != self._fingerprint:
            self._tell_what_changed()
            return "changed"
        now = (item.known.size, item.known.mtime_ns)
        if item.kind == "path" and (None in now or now != (row.size, row.mtime_ns)):
            return "changed"
        return "up to date"

    def _tell_what_changed(self) -> None:
        """Once: which facts are not those of other answers, and how many answers that costs."""
        if self._has_told:
            return
        self._has_told = True
        query = """SELECT facts, count(*) FROM pictures p JOIN fingerprints f ON f.id = p.fingerprint
                   WHERE f.id != ? GROUP BY 1 ORDER BY 2 DESC"""
        stale = [(json.loads(facts), count) for facts, count in self._execute(query, (self._fingerprint,))]
        before = stale[0][0]
        changes = [
            f"{name} {before.get(name)} -> {now}" for name, now in self._facts.items() if before.get(name) != now
        ]
        total = sum(count for _, count in stale)
        log.info("%d answers are of other settings; those asked for are given again (%s)", total, ", ".join(changes))

    def _store(self, record: Record) -> None:
        """An answer that is not what it was makes the output one of before."""
        answer: dict[str, str | None] = {"scores": None, "code": None, "message": None}
        if isinstance(record, Failure):
            answer.update(code=record.code, message=record.message)
        else:
            answer.update(scores=json.dumps([(score.index, score.score) for score in record.scores]))
        query = "SELECT scores, code, message FROM pictures WHERE kind = ? AND source = ?"
        if self._execute(query, _key(record.source)).fetchone() != tuple(answer.values()):
            self._execute("DELETE FROM state WHERE key = 'written'")
        kind, source = _key(record.source)
        values = asdict(record.identity) | answer | {"kind": kind, "source": source, "run": self._run}
        self._execute(_STORE, values | {"fingerprint": self._fingerprint, "dtype": self._dtype})

    def _record(self, row: Sequence[Any]) -> Record:
        kind, location, scores, code, message = row
        source = Source(os.fsdecode(location), kind)
        return Prediction(source, self._scores(scores)) if code is None else Failure(source, code, message)

    def _scores(self, text: str) -> tuple[Score, ...]:
        try:
            return tuple(Score(self._labels[index], index, score) for index, score in json.loads(text))
        except (TypeError, ValueError, IndexError) as error:
            raise sqlite3.DatabaseError(f"scores that are none: {text}") from error

    def _written(self, path: str, appearance: str) -> str:
        status = os.stat(path)
        file = (status.st_ino, status.st_size, status.st_mtime_ns)
        return json.dumps([self._asked, self._order.hexdigest(), appearance, *file])


_GONE = "id NOT IN (SELECT picture FROM run)"
_PLACE = """
INSERT INTO run VALUES (?, ?)
ON CONFLICT (position) DO UPDATE SET picture = excluded.picture WHERE picture != excluded.picture
"""
_STORE = """
UPDATE pictures SET
    crashes = CASE WHEN :code IS NOT 'decoder_crashed' THEN 0
                   WHEN code = 'decoder_crashed' AND size IS :size AND mtime_ns IS :mtime_ns THEN crashes + 1
                   ELSE 1 END,
    size = :size, mtime_ns = :mtime_ns, etag = :etag, last_modified = :last_modified, digest = :digest,
    fingerprint = :fingerprint, dtype = :dtype, answered = :run,
    scores = :scores, code = :code, message = :message
WHERE kind = :kind AND source = :source
"""


def _key(source: Source) -> tuple[str, bytes]:
    return source.kind, os.fsencode(source.location)
