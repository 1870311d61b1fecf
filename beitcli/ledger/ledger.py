"""State of a batch run, `FILE.ledger`: the requested images in order, and every result so far."""

import hashlib
import json
import logging
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Generic, Literal, NamedTuple

from beitcli.ledger.codecs import Codec
from beitcli.ledger.database import has_results, parsed
from beitcli.ledger.output_files import outputs_key, versions_of
from beitcli.ledger.results import COLUMNS, Results
from beitcli.ledger.retries import MOST_CRASHES, is_transient
from beitcli.ledger.runs import RunRecord, model_name, set_model, store_run, versions_of_runs
from beitcli.ledger.signed_urls import rename_signed_urls
from beitcli.outputs.provenance import Provenance
from beitcli.outputs.summary import Tally
from beitcli.records import Failure, Found, Identity, ResultRecord, Source, printable

log = logging.getLogger(__name__)

State = Literal["new", "changed", "to retry", "up to date"]
"""State of an image relative to its stored result."""


@dataclass(frozen=True, slots=True)
class Recompute:
    """Results to recompute: every failure, and those of URLs that have changed."""

    errors: bool = False
    urls: bool = False


class _Row(NamedTuple):
    """The ledger's columns of one image."""

    id: int
    size: int | None = None
    mtime_ns: int | None = None
    etag: str | None = None
    last_modified: str | None = None
    fingerprint: int | None = None
    code: str | None = None
    pixels: int | None = None
    crashes: int = 0
    scores: str | None = None
    asked: int | None = None
    answered: int | None = None

    @property
    def is_transient(self) -> bool:
        """True for a failure that may pass on a retry."""
        if self.code == "decoder_crashed":
            return self.crashes < MOST_CRASHES
        return self.code is not None and is_transient(self.code)


class Ledger(Generic[ResultRecord]):
    """One run on a ledger; `output` is its file where outputs share one.

    Only `begin_run`, `end_run`, `add`, `prune` and `mark_written` commit.
    """

    def __init__(
        self, database: sqlite3.Connection, facts: Mapping[str, str], codec: Codec[ResultRecord], output: str = ""
    ) -> None:
        self._database = database
        self._execute = database.execute
        self._written_key, self._outputs_key = f"written {output}".rstrip(), outputs_key(output)
        self._facts = facts
        self._codec = codec
        if not database.in_transaction:
            self._execute("BEGIN")
        self._run = 1 + (self._state("runs") or 0)
        self._set_state("runs", self._run)
        if self._state("urls") is None:
            self._set_state("urls", "without secrets")
            if rename_signed_urls(database):
                self._mark_output_stale()
        text = json.dumps(facts, sort_keys=True)
        self._execute("INSERT OR IGNORE INTO fingerprints (facts) VALUES (?)", (text,))
        [self._fingerprint] = self._execute("SELECT id FROM fingerprints WHERE facts = ?", (text,)).fetchone()
        self._results = Results(database, facts, codec)
        self._requested = 0
        self._order = hashlib.sha256()
        self._stale: Counter[int] = Counter()
        self.device: str | None = None
        self._dtype: str | None = None
        self._had_rows = has_results(database)
        self._shares = False
        self.unverified_urls = 0

    @property
    def facts(self) -> Mapping[str, str]:
        """Everything except the image that a result of this run depends on."""
        return self._facts

    @property
    def requested(self) -> int:
        """The number of images requested so far, each as often as it was named."""
        return self._requested

    def set_model(self, name: str) -> None:
        """Name the model of this run's results."""
        set_model(self._database, self._fingerprint, name, self._codec.layout())

    def begin_run(self, run: RunRecord) -> None:
        """Store and commit the begin of this run, by which one that is killed is known."""
        self.store_run(run)
        self._commit()

    def store_run(self, run: RunRecord) -> None:
        """Store this run as it stands; `add` commits it."""
        store_run(self._database, self._run, self._fingerprint, run)

    def end_run(self, run: RunRecord) -> None:
        """Store and commit the end of this run; of an incomplete one, nothing else since the last commit."""
        if not run.is_complete:
            self._execute("ROLLBACK")
            self._execute("BEGIN")
        self.store_run(run)
        self._commit()

    def provenance(self) -> Provenance:
        """The model, and the versions of `beit` that computed the results of the requested images."""
        query = """SELECT DISTINCT answered FROM run JOIN pictures ON id = picture
                   WHERE answered > 0 AND code IS NULL"""
        versions = versions_of_runs(self._database, (run for (run,) in self._execute(query)))
        return Provenance(model_name(self._database, self._fingerprint) or "", self._facts["model"], versions)

    def set_device(self, device: str, dtype: str) -> None:
        """Set the device and the dtype of the results from now on."""
        self.device, self._dtype = device, dtype

    def remembered(self, key: str, value: bool) -> bool:
        """The value that the ledger's first run stored under `key`; stores `value` if there is none."""
        if self._state(key) is None:
            self._set_state(key, value)
        return bool(self._state(key))

    def is_for(self, command: str) -> bool:
        """True if this ledger belongs to `command`, to which a new ledger is assigned."""
        if self._state("command") is None:
            self._set_state("command", command)
        return bool(self._state("command") == command)

    def pending(self, found: Iterable[Found], again: Recompute, states: Counter[State]) -> Iterator[Source]:
        """The images that need a result. Stores the order of all items found, and counts their states in `states`."""
        for item in found:
            source = item.source if isinstance(item, Failure) else item
            row = self._row(source)
            self._append(row.id)
            self._shares = self._shares or row.answered is not None or source.kind == "stdin"
            state = self._state_of(item, row, again)
            states[state] += 1
            if row.asked == self._run:  # named twice
                continue
            refreshed = again.urls and source.kind == "url" and state == "up to date"
            if state == "up to date" and row.code is not None and row.scores is not None:
                self._clear_failure(row.id)
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
        self._report_changed_facts()
        self._execute("DELETE FROM run WHERE position >= ?", (self._requested,))

    def add(self, records: Iterable[ResultRecord | Failure]) -> None:
        """Store and commit the records."""
        for record in records:
            self._store(record)
        self._commit()

    def result_of(self, digest: bytes) -> Any | None:
        """The result of an identical image, if it is available."""
        return self._results.of_digest(digest)

    def digests_of_results(self, most: int) -> bytes:
        """8 bytes of the digest of every image with a result that holds; none where there are more than `most`."""
        return self._results.digests(most)

    def count(self, tally: Tally, is_complete: bool) -> None:
        """Extend the tally of this run's work to all requested images that have a result.

        In a run that `is_complete`, a requested image without a result of this run is a URL that has not changed.
        """
        query = """SELECT code, answered = ?, count(*) FROM run JOIN pictures ON id = picture
                   WHERE answered > 0 AND position < ? AND (? OR asked IS NOT ? OR answered = ?) GROUP BY 1, 2"""
        values = (self._run, self._requested, is_complete, self._run, self._run)
        counts = self._execute(query, values).fetchall()
        tally.failed = Counter()
        for code, _, count in counts:
            if code is not None:
                tally.failed[code] += count
        tally.kept = sum(count for code, is_new, count in counts if code is None and not is_new)
        tally.reused = sum(count for code, is_new, count in counts if code is None and is_new) - tally.decoded

    def count_successes(self) -> int:
        """The number of requested images with a prediction or features."""
        query = "SELECT count(*) FROM run JOIN pictures ON id = picture WHERE answered > 0 AND code IS NULL"
        return int(self._execute(query).fetchone()[0])

    def dtypes(self) -> list[str]:
        """The dtypes in which the results of the requested images were computed."""
        query = "SELECT DISTINCT dtype FROM run JOIN pictures ON id = picture WHERE code IS NULL ORDER BY 1"
        return [dtype for (dtype,) in self._execute(query) if dtype]

    def records(self) -> Iterator[list[ResultRecord | Failure]]:
        """The results of the requested images, in their order and in lists; of an identity only its digest."""
        query = f"SELECT {COLUMNS} FROM run JOIN pictures ON id = picture WHERE answered > 0 ORDER BY position"  # noqa: S608
        return self._results.records(self._execute(query))

    def shares_nothing(self) -> bool:
        """True if this run has images, the last one had, and none of this run's ever had a result."""
        return self._had_rows and bool(self._requested) and not self._shares

    def count_removed(self) -> int:
        """The number of results of images that are no longer requested."""
        query = f"SELECT count(*) FROM pictures WHERE {_ORPHANED} AND answered > 0 AND kind != 'stdin'"  # noqa: S608
        return int(self._execute(query).fetchone()[0])

    def prune(self) -> None:
        """Delete the results of images that are no longer requested."""
        self._execute(f"DELETE FROM pictures WHERE {_ORPHANED}")  # noqa: S608  # a constant
        self._commit()

    def is_written(self, paths: Sequence[str], appearance: str) -> bool:
        """True if the files are unchanged since these results were written, in this order and appearance."""
        return all(map(os.path.exists, paths)) and self._state(self._written_key) == self._written(paths, appearance)

    @property
    def outputs(self) -> str | None:
        """The `versions_of` the output files as they were written, none before; None in an earlier version's ledger."""
        never_written = self._state(self._written_key) is None
        return self._state(self._outputs_key) or (versions_of(()) if never_written else None)

    @outputs.setter
    def outputs(self, versions: str | None) -> None:
        self._set_state(self._outputs_key, versions)

    def mark_written(self, paths: Sequence[str], appearance: str) -> None:
        """Record that the files hold the ledger's results."""
        self.outputs = versions_of(paths)
        self._set_state(self._written_key, self._written(paths, appearance))
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
        query = f"SELECT {_STATE_COLUMNS} FROM pictures WHERE kind = ? AND source = ?"  # noqa: S608  # a constant
        found = self._execute(query, _key(source)).fetchone()
        if found:
            return _Row(*found)
        return _Row(self._execute("INSERT INTO pictures (kind, source) VALUES (?, ?)", _key(source)).lastrowid or 0)

    def _append(self, image: int) -> None:
        """Append the image to the order of this run. A page of the database is only written where it changes."""
        self._execute(_APPEND, (self._requested, image))
        self._order.update(image.to_bytes(8, "big"))
        self._requested += 1

    def _state_of(self, item: Found, row: _Row, again: Recompute) -> State:
        if row.answered is None or (isinstance(item, Source) and item.kind == "stdin"):
            return "new"
        is_retried = row.is_transient or (row.code is not None and again.errors)
        if isinstance(item, Failure):
            return "to retry" if is_retried else "up to date" if item.code == row.code else "changed"
        now = (item.known.size, item.known.mtime_ns)
        same = item.kind == "url" or (None not in now and now == (row.size, row.mtime_ns))
        same = same and self._results.holds(row.fingerprint, row.scores, row.code, row.pixels)
        if is_retried:
            return "up to date" if same and row.scores is not None and item.kind == "path" else "to retry"
        return "up to date" if same else "changed"

    def _clear_failure(self, image: int) -> None:
        """Restore the stored result of a file that is available again, unchanged."""
        self._execute("UPDATE pictures SET code = NULL, message = NULL WHERE id = ?", (image,))
        self._mark_output_stale()

    def _mark_output_stale(self) -> None:
        """Mark every output stale: a stored result changed."""
        self._execute("DELETE FROM state WHERE key = 'written' OR key LIKE 'written %'")

    def _report_changed_facts(self) -> None:
        """Log the number of stale results and the facts that differ."""
        if not self._stale:
            return
        [[most, _]] = self._stale.most_common(1)
        found = self._execute("SELECT facts FROM fingerprints WHERE id = ?", (most,)).fetchone()
        before = parsed(found[0]) if found else {}
        names = {before.get("model"): model_name(self._database, most)}
        names[self._facts.get("model")] = model_name(self._database, self._fingerprint)
        changes = [
            f"{name} {_named(names, before.get(name))} -> {_named(names, now)}"
            for name, now in self._facts.items()
            if before.get(name) != now
        ]
        log.info("%d results of other settings are recomputed (%s)", self._stale.total(), ", ".join(changes))

    def _store(self, record: ResultRecord | Failure) -> None:
        """Replace the stored record; a transient failure keeps the stored result."""
        kind, source = _key(record.source)
        query = "SELECT scores, code, message, fingerprint, pixels FROM pictures WHERE kind = ? AND source = ?"
        *before, fingerprint, pixels = self._execute(query, (kind, source)).fetchone()
        result: dict[str, str | None] = {"scores": None, "code": None, "message": None}
        statement = _STORE
        if not isinstance(record, Failure):
            result["scores"] = self._codec.encode(record)
        else:
            result |= {"code": record.code, "message": record.message}
            if is_transient(record.code):
                holds = self._results.holds(fingerprint, before[0], before[1], pixels)
                if kind == "url" and before[0] and before[1] is None and holds:
                    self.unverified_urls += 1
                    return
                result["scores"] = before[0]
                statement = _STORE_TRANSIENT
        if before != list(result.values()):
            self._mark_output_stale()
        values = asdict(record.identity) | result | {"kind": kind, "source": source, "run": self._run}
        self._execute(statement, values | {"fingerprint": self._fingerprint, "dtype": self._dtype})

    def _written(self, paths: Sequence[str], appearance: str) -> str:
        files = [(status.st_ino, status.st_size, status.st_mtime_ns) for status in map(os.stat, paths)]
        return json.dumps([self._requested, self._order.hexdigest(), self._fingerprint, appearance, files])


_STATE_COLUMNS = ", ".join(_Row._fields)
_ORPHANED = "id NOT IN (SELECT picture FROM run)"
_APPEND = """
INSERT INTO run VALUES (?, ?)
ON CONFLICT (position) DO UPDATE SET picture = excluded.picture WHERE picture != excluded.picture
"""
_STORE = """
UPDATE pictures SET
    crashes = CASE WHEN :code IS NOT 'decoder_crashed' THEN 0
                   WHEN code = 'decoder_crashed' AND size IS :size AND mtime_ns IS :mtime_ns THEN crashes + 1
                   ELSE 1 END,
    size = :size, mtime_ns = :mtime_ns, etag = :etag, last_modified = :last_modified, digest = :digest,
    pixels = :pixels,
    fingerprint = :fingerprint, dtype = :dtype, answered = :run,
    scores = :scores, code = :code, message = :message
WHERE kind = :kind AND source = :source
"""


_STORE_TRANSIENT = """
UPDATE pictures SET code = :code, message = :message, answered = :run WHERE kind = :kind AND source = :source
"""


def _named(models: Mapping[str | None, str | None], value: str | None) -> str:
    """A fact as notices show it: before the digest of a model its name, if that is known."""
    name = models.get(value)
    return f"{printable(name)} ({value})" if name else str(value)


def _key(source: Source) -> tuple[str, bytes]:
    return source.kind, os.fsencode(source.location)
