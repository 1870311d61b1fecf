"""Runs of a ledger: begin, end, model, settings and counts of each."""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from beitcli.ledger.database import parsed


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run over images. Without `ended` it was killed, or could not write its end.

    `settings` are the options given another value than their default. `counts` are those of the summary; of a run that
    did not get to its end, only of its own work.
    """

    command: str
    started: str
    host: str
    process: int
    version: str
    model: str
    digest: str
    settings: Mapping[str, Any]
    counts: Mapping[str, Any]
    ended: str | None = None
    exit_status: int | None = None
    signal: str | None = None
    error: str | None = None

    @property
    def is_complete(self) -> bool:
        """True if it processed all its images."""
        return self.ended is not None and self.signal is None and self.error is None


_JSON = ("settings", "counts")
_COLUMNS = tuple(field.name for field in fields(RunRecord))
_STORED = ("id", "fingerprint", *_COLUMNS)


def store_run(database: sqlite3.Connection, number: int, fingerprint: int, run: RunRecord) -> None:
    """Store a run under its number, in place of what was stored of it."""
    values = asdict(run) | {name: json.dumps(getattr(run, name)) for name in _JSON}
    columns, places = ", ".join(_STORED), ", ".join("?" for _ in _STORED)
    query = f"INSERT OR REPLACE INTO runs ({columns}) VALUES ({places})"  # noqa: S608  # constants
    database.execute(query, (number, fingerprint, *values.values()))


def stored_runs(database: sqlite3.Connection) -> list[RunRecord]:
    """All runs, the first one first."""
    rows = database.execute(f"SELECT {', '.join(_COLUMNS)} FROM runs ORDER BY id")  # noqa: S608  # constants
    return [_run(dict(zip(_COLUMNS, row, strict=True))) for row in rows]


def _run(values: dict[str, Any]) -> RunRecord:
    return RunRecord(**values | {name: parsed(values[name]) for name in _JSON})


@dataclass(frozen=True, slots=True)
class LastRun:
    """The last run and its number, all facts that its results depend on, and the layout of the stored ones."""

    number: int
    run: RunRecord
    facts: Mapping[str, str]
    layout: Mapping[str, Any]


def last_run(database: sqlite3.Connection) -> LastRun | None:
    """The last run of a ledger, or None where only earlier versions have used it."""
    query = """SELECT runs.id, facts, layout FROM runs JOIN fingerprints ON fingerprints.id = runs.fingerprint
               JOIN models ON models.fingerprint = runs.fingerprint ORDER BY runs.id DESC LIMIT 1"""
    found = database.execute(query).fetchone()
    if found is None:
        return None
    number, facts, layout = found
    return LastRun(number, stored_runs(database)[-1], parsed(facts), parsed(layout))


def model_name(database: sqlite3.Connection, fingerprint: int) -> str | None:
    """Name of the model behind a fingerprint, or None where only earlier versions have used it."""
    found = database.execute("SELECT name FROM models WHERE fingerprint = ?", (fingerprint,)).fetchone()
    return str(found[0]) if found else None


def set_model(database: sqlite3.Connection, fingerprint: int, name: str, layout: Mapping[str, Any]) -> None:
    """Name the model behind a fingerprint, and keep the layout of its results."""
    query = """INSERT INTO models VALUES (?, ?, ?) ON CONFLICT (fingerprint)
               DO UPDATE SET name = excluded.name, layout = excluded.layout
               WHERE (name, layout) != (excluded.name, excluded.layout)"""
    database.execute(query, (fingerprint, name, json.dumps(layout)))


def versions_of_runs(database: sqlite3.Connection, runs: Iterable[int]) -> tuple[str, ...]:
    """The versions of `beit` that made these runs, each once; `unknown` where only earlier versions have."""
    known = dict(database.execute("SELECT id, version FROM runs"))
    return tuple(sorted({known.get(run, "unknown") for run in runs}))
