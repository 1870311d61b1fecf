"""Results of another ledger that hold in this run, for a new ledger to begin with."""

import sqlite3
from collections.abc import Callable, Mapping
from typing import TypeAlias

from beitcli.ledger.database import open_database, parsed
from beitcli.ledger.validity import validity

Facts: TypeAlias = Mapping[str, str]


def copy_results(
    path: str, database: sqlite3.Connection, command: str, facts: Callable[[], Facts], adopt: Callable[[str], None]
) -> int:
    """Copy the results that hold from the ledger at `path`, of the same command, into a new one; their number.

    `facts` is called when the digests of files that are cached in the other are in the new one, and `adopt` with `path`
    before anything is committed, to take what the results need beside it. Raises OutputError, sqlite3.Error.
    """
    with open_database(path):  # a ledger, of this version's schema
        pass
    database.execute("ATTACH DATABASE ? AS sibling", (path,))
    try:
        if database.execute("SELECT value FROM sibling.state WHERE key = 'command'").fetchone() != (command,):
            return 0
        database.execute("BEGIN")
        try:
            count = _copy_attached(database, facts)
            if count:
                adopt(path)
        except BaseException:
            database.execute("ROLLBACK")
            raise
        database.execute("COMMIT")
        return count
    finally:
        database.execute("DETACH DATABASE sibling")


def _copy_attached(database: sqlite3.Connection, facts: Callable[[], Facts]) -> int:
    database.execute("INSERT INTO files SELECT * FROM sibling.files")
    now = facts()
    stored = database.execute("SELECT id, facts FROM sibling.fingerprints").fetchall()
    holding = [(fingerprint,) for fingerprint, before in stored if validity(parsed(before), now).holds]
    where = "FROM sibling.pictures WHERE fingerprint = ? AND answered > 0 AND kind != 'stdin'"
    columns = ", ".join(name for _, name, *_ in database.execute("PRAGMA table_info(pictures)"))
    statement = f"INSERT INTO pictures ({columns}) SELECT {columns} {where}"
    count = database.executemany(statement, holding).rowcount if holding else 0
    if not count:
        return 0
    for table in ("fingerprints", "models", "runs"):  # the runs that gave the results
        database.execute(f"INSERT INTO {table} SELECT * FROM sibling.{table}")  # noqa: S608  # constants
    database.execute("INSERT INTO state SELECT * FROM sibling.state WHERE key IN ('command', 'runs', 'compiled')")
    return count
