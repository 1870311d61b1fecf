"""The memory of a batch run, `FILE.ledger`: what was asked for in which order, and every answer so far."""

import hashlib
import json
import logging
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar

from beitcli.outputs.summary import Tally
from beitcli.records import Embedding, Failure, Found, Identity, Prediction, Score, Source

log = logging.getLogger(__name__)

State = Literal["new", "changed", "to retry", "up to date"]
"""How a picture stands to its answer."""

LASTING = frozenset({"empty_file", "not_an_image", "truncated", "corrupt", "too_large", "unsupported"})
"""Failures that an unchanged picture keeps, as it does `http_4NN`, but for `PASSING`."""

PASSING = frozenset({"http_408", "http_425", "http_429"})
MOST_CRASHES = 2
"""How often an unchanged picture may crash its decoder before it is left alone: once may be bad luck."""

_RECORDS = 100
"""How many records are read at once: a picture's patches may be megabytes."""


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
    scores: str | None = None
    asked: int | None = None
    answered: int | None = None

    @property
    def passes(self) -> bool:
        """Whether it is a failure that another try may get past."""
        if self.code == "decoder_crashed":
            return self.crashes < MOST_CRASHES
        return self.code is not None and _passes(self.code)


Answer = TypeVar("Answer")
Answered = TypeVar("Answered", bound=Prediction | Embedding)
_Read = TypeVar("_Read", covariant=True)


class Answers(Protocol[_Read, Answered]):
    """How a kind of answer is kept as text. Reading raises sqlite3.DatabaseError for what is none."""

    def holds(self, text: str) -> bool: ...
    def text(self, record: Answered) -> str: ...
    def answer(self, text: str) -> _Read: ...
    def record(self, source: Source, identity: Identity, text: str) -> Answered: ...


class Scored:
    """Predictions as JSON `[[index, score], …]`."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels

    def holds(self, text: str) -> bool:  # noqa: ARG002  # a prediction refers to nothing that could be gone
        return True

    def text(self, record: Prediction) -> str:
        return json.dumps([(score.index, score.score) for score in record.scores])

    def answer(self, text: str) -> tuple[Score, ...]:
        try:
            return tuple(Score(self._labels[index], index, score) for index, score in parsed(text))
        except (TypeError, ValueError, IndexError) as error:
            raise sqlite3.DatabaseError(f"scores that are none: {text}") from error

    def record(self, source: Source, identity: Identity, text: str) -> Prediction:
        return Prediction(source, self.answer(text), identity)


class Ledger(Generic[Answer, Answered]):
    """One run on a ledger. Only `add`, `prune` and `wrote` keep what has happened until then."""

    def __init__(
        self, database: sqlite3.Connection, facts: Mapping[str, str], answers: Answers[Answer, Answered]
    ) -> None:
        self._execute = database.execute
        self._facts = facts
        self._answers = answers
        if not database.in_transaction:
            self._execute("BEGIN")
        self._run = 1 + (self._state("runs") or 0)
        self._set_state("runs", self._run)
        text = json.dumps(facts, sort_keys=True)
        self._execute("INSERT OR IGNORE INTO fingerprints (facts) VALUES (?)", (text,))
        [self._fingerprint] = self._execute("SELECT id FROM fingerprints WHERE facts = ?", (text,)).fetchone()
        self._asked = 0
        self._order = hashlib.sha256()
        self._stale: Counter[int] = Counter()
        self._dtype: str | None = None
        self.unrefreshed = 0

    def runs_in(self, dtype: str) -> None:
        """From now on answers are given in this dtype."""
        self._dtype = dtype

    def decided(self, question: str, answer: bool) -> bool:
        """What the first run of this ledger decided; this answer, if no run has been asked before."""
        if self._state(question) is None:
            self._set_state(question, answer)
        return bool(self._state(question))

    def is_for(self, command: str) -> bool:
        """Whether this ledger has always been that command's."""
        if self._state("command") is None:
            self._set_state("command", command)
        return bool(self._state("command") == command)

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
            if state == "up to date" and row.code is not None and row.scores is not None:
                self._forgive(row.id)
            if state == "up to date" and not refreshed:
                continue
            self._execute("UPDATE pictures SET asked = ? WHERE id = ?", (self._run, row.id))
            if isinstance(item, Failure):
                self._store(item)
            elif refreshed:
                yield replace(source, known=Identity(etag=row.etag, last_modified=row.last_modified))
            else:
                if state == "changed" and row.fingerprint not in (None, self._fingerprint):
                    self._stale[row.fingerprint] += 1
                yield source
        self._tell_what_changed()
        self._execute("DELETE FROM run WHERE position >= ?", (self._asked,))

    def add(self, records: Iterable[Answered | Failure]) -> None:
        """Keeps the records, whatever happens from here."""
        for record in records:
            self._store(record)
        self._commit()

    def answer_of(self, digest: bytes) -> Answer | None:
        """What was answered to an identical picture, if that is still to be had."""
        query = "SELECT scores FROM pictures WHERE digest = ? AND fingerprint = ? AND scores IS NOT NULL LIMIT 1"
        found = self._execute(query, (digest, self._fingerprint)).fetchone()
        with suppress(sqlite3.DatabaseError):
            return self._answers.answer(found[0]) if found else None
        return None

    def count(self, tally: Tally, is_complete: bool) -> None:
        """Makes the tally of this run's work one of all that was asked for, as far as that has an answer.

        In a run that `is_complete`, what was asked for and has none of this run is a URL that has not changed.
        """
        query = """SELECT code, answered = ?, count(*) FROM run JOIN pictures ON id = picture
                   WHERE answered > 0 AND position < ? AND (? OR asked IS NOT ? OR answered = ?) GROUP BY 1, 2"""
        values = (self._run, self._asked, is_complete, self._run, self._run)
        counts = self._execute(query, values).fetchall()
        tally.failed = Counter()
        for code, _, count in counts:
            if code is not None:
                tally.failed[code] += count
        tally.kept = sum(count for code, is_new, count in counts if code is None and not is_new)
        tally.reused = sum(count for code, is_new, count in counts if code is None and is_new) - tally.decoded

    def answered(self) -> int:
        """How many pictures of those asked for have an answer that is no failure."""
        query = "SELECT count(*) FROM run JOIN pictures ON id = picture WHERE answered > 0 AND code IS NULL"
        return int(self._execute(query).fetchone()[0])

    def dtypes(self) -> list[str]:
        """In which dtypes the answers to all that was asked for were given."""
        query = "SELECT DISTINCT dtype FROM run JOIN pictures ON id = picture WHERE code IS NULL ORDER BY 1"
        return [dtype for (dtype,) in self._execute(query) if dtype]

    def records(self) -> Iterator[list[Answered | Failure]]:
        """The answers to all that was asked for, in its order and in lists; of a picture's identity, its digest."""
        query = """SELECT kind, source, digest, scores, code, message FROM run JOIN pictures ON id = picture
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

    def is_written(self, paths: Sequence[str], appearance: str) -> bool:
        """Whether the files are still what this ledger wrote of these very answers, in this order and appearance."""
        return all(map(os.path.exists, paths)) and self._state("written") == self._written(paths, appearance)

    def wrote(self, paths: Sequence[str], appearance: str) -> None:
        """Remembers that the files are what the ledger says."""
        self._set_state("written", self._written(paths, appearance))
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
        query = f"SELECT {_COLUMNS} FROM pictures WHERE kind = ? AND source = ?"  # noqa: S608  # a constant
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
        tried_again = row.passes or (row.code is not None and again.errors)
        if isinstance(item, Failure):
            return "to retry" if tried_again else "up to date" if item.code == row.code else "changed"
        now = (item.known.size, item.known.mtime_ns)
        same = item.kind == "url" or (None not in now and now == (row.size, row.mtime_ns))
        same = same and row.fingerprint == self._fingerprint
        same = same and (row.scores is None or self._answers.holds(row.scores))
        if tried_again:
            return "up to date" if same and row.scores is not None and item.kind == "path" else "to retry"
        return "up to date" if same else "changed"

    def _forgive(self, picture: int) -> None:
        """A file that could not be had for a while is there again, unchanged: so is its answer."""
        self._execute("UPDATE pictures SET code = NULL, message = NULL WHERE id = ?", (picture,))
        self._forget_output()

    def _forget_output(self) -> None:
        """The output is one of before: an answer is not what it was."""
        self._execute("DELETE FROM state WHERE key = 'written'")

    def _tell_what_changed(self) -> None:
        """Which facts are not those of the answers that do not count any more, and how many those are."""
        if not self._stale:
            return
        [[most, _]] = self._stale.most_common(1)
        found = self._execute("SELECT facts FROM fingerprints WHERE id = ?", (most,)).fetchone()
        before = parsed(found[0]) if found else {}
        changes = [
            f"{name} {before.get(name)} -> {now}" for name, now in self._facts.items() if before.get(name) != now
        ]
        log.info("%d answers of other settings are given again (%s)", self._stale.total(), ", ".join(changes))

    def _store(self, record: Answered | Failure) -> None:
        """Keeps a record in place of the one before; a failure that may pass leaves what else is known."""
        kind, source = _key(record.source)
        query = "SELECT scores, code, message, fingerprint FROM pictures WHERE kind = ? AND source = ?"
        *before, fingerprint = self._execute(query, (kind, source)).fetchone()
        answer: dict[str, str | None] = {"scores": None, "code": None, "message": None}
        statement = _STORE
        if not isinstance(record, Failure):
            answer["scores"] = self._answers.text(record)
        else:
            answer |= {"code": record.code, "message": record.message}
            if _passes(record.code):
                if kind == "url" and before[0] and before[1] is None and fingerprint == self._fingerprint:
                    self.unrefreshed += 1
                    return
                answer["scores"] = before[0]
                statement = _STORE_PASSING
        if before != list(answer.values()):
            self._forget_output()
        values = asdict(record.identity) | answer | {"kind": kind, "source": source, "run": self._run}
        self._execute(statement, values | {"fingerprint": self._fingerprint, "dtype": self._dtype})

    def _record(self, row: Sequence[Any]) -> Answered | Failure:
        kind, location, digest, scores, code, message = row
        source = Source(os.fsdecode(location), kind)
        if code is not None:
            return Failure(source, code, message)
        return self._answers.record(source, Identity(digest=digest), scores)

    def _written(self, paths: Sequence[str], appearance: str) -> str:
        files = [(status.st_ino, status.st_size, status.st_mtime_ns) for status in map(os.stat, paths)]
        return json.dumps([self._asked, self._order.hexdigest(), self._fingerprint, appearance, files])


_COLUMNS = ", ".join(_Row._fields)
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


_STORE_PASSING = """
UPDATE pictures SET code = :code, message = :message, answered = :run WHERE kind = :kind AND source = :source
"""


def parsed(text: str) -> Any:
    """What the JSON says. Raises sqlite3.DatabaseError where it is none."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise sqlite3.DatabaseError(f"no JSON: {text}") from error


def _passes(code: str) -> bool:
    """Whether another try may get past the failure, though the picture has not changed."""
    lasting_http = code.startswith("http_4") and code not in PASSING
    return not (code in LASTING or code == "decoder_crashed" or lasting_http)


def _key(source: Source) -> tuple[str, bytes]:
    return source.kind, os.fsencode(source.location)
