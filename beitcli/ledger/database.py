"""The SQLite file of a ledger: schema, opening, error messages."""

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import chain, count
from typing import Any
from urllib.parse import quote

from beitcli.errors import MAKE_ROOM, BusyError, OutputError
from beitcli.file_system import can_lock, can_sync
from beitcli.records import printable, storable

_APPLICATION = 0x62656974  # `beit`, by which file(1) and we recognise the database
_VERSION = 1

# An image is a `picture` here and its result an answer, as in the first ledgers, so that all versions read one format.
_SCHEMA = f"""
CREATE TABLE pictures (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL, source BLOB NOT NULL,                                  -- bytes: names need not be UTF-8
    size INTEGER, mtime_ns INTEGER, etag TEXT, last_modified TEXT, digest BLOB,
    fingerprint INTEGER, dtype TEXT,                                           -- settings, and the dtype of `auto`
    scores TEXT, code TEXT, message TEXT,                                      -- JSON [[index, score], ...] or error
    crashes INTEGER NOT NULL DEFAULT 0,
    asked INTEGER, answered INTEGER,                                           -- last run to request / process it
    UNIQUE (kind, source)
);
CREATE INDEX by_digest ON pictures (digest) WHERE digest IS NOT NULL;
CREATE TABLE run (position INTEGER PRIMARY KEY, picture INTEGER NOT NULL);     -- images of the last run
CREATE TABLE fingerprints (id INTEGER PRIMARY KEY, facts TEXT NOT NULL UNIQUE);
CREATE TABLE files (path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, digest TEXT);
CREATE TABLE state (key TEXT PRIMARY KEY, value);
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_VERSION};
"""

_PIXELS = """
BEGIN;
ALTER TABLE pictures ADD COLUMN pixels INTEGER;                                -- the limit that the image needs
CREATE TRIGGER other_image AFTER UPDATE OF size, mtime_ns, digest ON pictures  -- also where an older version writes it
WHEN (NEW.size, NEW.mtime_ns, NEW.digest) IS NOT (OLD.size, OLD.mtime_ns, OLD.digest) AND NEW.pixels = OLD.pixels
BEGIN UPDATE pictures SET pixels = NULL WHERE id = NEW.id; END;
COMMIT;
"""
"""Addition to the schema without a new version of it: older versions go on with it, and predict some again."""

_RUNS = """
CREATE TABLE IF NOT EXISTS runs (
    id INTEGER PRIMARY KEY,                                                    -- as in `pictures.answered`
    fingerprint INTEGER NOT NULL, started TEXT NOT NULL, ended TEXT, host TEXT NOT NULL, process INTEGER NOT NULL,
    version TEXT NOT NULL, command TEXT NOT NULL, model TEXT NOT NULL, digest TEXT NOT NULL,
    settings TEXT NOT NULL, counts TEXT NOT NULL,                              -- JSON
    exit_status INTEGER, signal TEXT, error TEXT
);
CREATE TABLE IF NOT EXISTS models (fingerprint INTEGER PRIMARY KEY, name TEXT NOT NULL, layout TEXT NOT NULL);
"""
"""Tables that ledgers of earlier versions get when they are opened; those versions do not mind them."""

_SUFFIXES = ("", "-wal", "-journal")

_START_OVER = (
    "start over with `fresh=True`, which keeps the old ledger beside the new one; a probe by deleting MODEL.part"
)


@contextmanager
def open_database(path: str) -> Iterator[sqlite3.Connection]:
    """The database at `path`, created if missing; "" is a temporary one.

    Statements outside a transaction are committed at once. Raises OutputError for every error of the database or its
    disk, also inside the block.
    """
    try:
        address, syncs = _address(path) if path else ("", True)
        with closing(sqlite3.connect(address, isolation_level=None, uri=bool(path))) as database:
            _prepare(database, path, syncs)
            yield database
    except sqlite3.Error as error:
        raise _explained(error, path) from error


@contextmanager
def copied_database(path: str) -> Iterator[sqlite3.Connection]:
    """A temporary copy of the database at `path`, empty if there is none. Raises OutputError."""
    with open_database("") as copy:
        if path and os.path.exists(path):
            with open_database(path) as database:
                database.backup(copy)
        yield copy


def move_aside(path: str) -> None:
    """Rename the database to `….old`, or `….old2` and so on, with its log, which the next database would use.

    Features beside it are removed: they can be recomputed, and are as large as the output.
    """
    names = (f"{path}.old{number}" for number in chain(("",), count(2)))
    old = next(name for name in names if not any(os.path.exists(name + suffix) for suffix in _SUFFIXES))
    try:
        for suffix in _SUFFIXES:
            with suppress(FileNotFoundError):
                os.replace(path + suffix, old + suffix)
        with suppress(FileNotFoundError):
            os.unlink(f"{path}-features")
    except OSError as error:
        raise OutputError(f"cannot move `{printable(path)}` aside: {error.strerror}") from error


def cached_digest(path: str, database: sqlite3.Connection) -> str:
    """The SHA-256 of a file's content, cached by its size and times. Raises OSError where it cannot be read."""
    key = os.fsencode(os.path.realpath(path))
    with open(path, "rb") as stream:
        status = os.fstat(stream.fileno())
        version = (status.st_size, storable(status.st_mtime_ns), storable(status.st_ctime_ns))
        known = database.execute("SELECT size, mtime_ns, ctime_ns, digest FROM files WHERE path = ?", (key,)).fetchone()
        if known and known[:3] == version:
            return str(known[3])
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    database.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", (key, *version, digest.hexdigest()))
    return digest.hexdigest()


def parsed(text: str) -> Any:
    """The JSON's value. Raises sqlite3.DatabaseError where it is invalid."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise sqlite3.DatabaseError(f"invalid JSON: {text}") from error


def has_images_under(folder: str, database: sqlite3.Connection) -> bool:
    """True if an image below the folder ever had a result."""
    prefix = os.fsencode(folder.rstrip("/")) + b"/"
    after = prefix[:-1] + b"0"  # the character after the slash
    query = "SELECT 1 FROM pictures WHERE kind = 'path' AND source > ? AND source < ? AND answered > 0"
    return database.execute(query, (prefix, after)).fetchone() is not None


def has_results(database: sqlite3.Connection) -> bool:
    """True if an image of the last run has a result."""
    query = "SELECT 1 FROM run JOIN pictures ON id = picture WHERE answered > 0 LIMIT 1"
    return database.execute(query).fetchone() is not None


def _address(path: str) -> tuple[str, bool]:
    """The URI by which SQLite opens the file, without locks where its file system has none; and True if it syncs."""
    has_locks, syncs = True, True
    with suppress(OSError):  # which SQLite then raises, too
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)  # the mode that SQLite gives
        try:
            has_locks, syncs = can_lock(descriptor), can_sync(descriptor)
        finally:
            os.close(descriptor)
    uri = f"file://{quote(os.fsencode(os.path.abspath(path)))}"
    return (uri if has_locks else f"{uri}?vfs=unix-none"), syncs  # not `nolock=1`: a log is not read with it


def _prepare(database: sqlite3.Connection, path: str, syncs: bool) -> None:
    database.execute("PRAGMA locking_mode = EXCLUSIVE")  # before WAL, which then does without shared memory
    has_tables = _value(database, "SELECT count(*) FROM sqlite_master")
    if has_tables and _value(database, "PRAGMA application_id") != _APPLICATION:
        raise OutputError(f"`{printable(path)}` is no ledger of beit", "move it away, or choose another file")
    if _value(database, "PRAGMA user_version") > _VERSION:
        raise OutputError(f"`{printable(path)}` is from a newer version of beit", f"update beit, or {_START_OVER}")
    if not syncs:
        database.execute("PRAGMA synchronous = OFF")
    if _value(database, "PRAGMA journal_mode = WAL") == "wal":
        if syncs:
            database.execute("PRAGMA synchronous = NORMAL")  # a crash of the machine may cost the last batches, no more
    else:  # some network shares
        database.execute("PRAGMA journal_mode = DELETE")
    if not has_tables:
        database.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
    if not _value(database, "SELECT count(*) FROM pragma_table_info('pictures') WHERE name = 'pixels'"):
        database.executescript(_PIXELS)
    database.executescript(f"BEGIN; {_RUNS} COMMIT;")


def _value(database: sqlite3.Connection, query: str) -> Any:
    return database.execute(query).fetchone()[0]


def _explained(error: sqlite3.Error, path: str) -> OutputError:
    text, name = str(error), printable(path)
    if "is full" in text:
        return OutputError(f"no room for the ledger `{name}`", MAKE_ROOM)
    if "is locked" in text:
        return BusyError(f"another program has the ledger `{name}` open", "close it there, then run it again")
    if isinstance(error, sqlite3.OperationalError) and "no such" not in text:
        return OutputError(f"cannot use the ledger `{name}`: {text}")
    return OutputError(f"the ledger `{name}` is damaged: {text}", _START_OVER)
