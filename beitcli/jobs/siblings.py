"""The ledger beside a new output of the same name and another format, whose results the new ledger begins with."""

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from beitcli.errors import OutputError
from beitcli.jobs.requests import Request
from beitcli.jobs.tasks import Task
from beitcli.ledger.siblings import copy_results
from beitcli.outputs.feature_files import SUFFIXES as FEATURES
from beitcli.outputs.formats import BY_SUFFIX
from beitcli.outputs.lock import exclusive

log = logging.getLogger(__name__)

_SUFFIXES = {"batch": (*BY_SUFFIX, *(f"{suffix}.gz" for suffix in BY_SUFFIX)), "embed": FEATURES}
"""The suffixes of outputs that hold the same results, by command."""


def begin_with_sibling(
    request: Request, task: Task[Any], database: sqlite3.Connection, facts: Callable[[], Mapping[str, str]]
) -> bool:
    """Fill a new ledger with the results of a sibling that hold in this run; True if one has any.

    One that another run is writing, or that cannot be read, is passed over with a notice.
    """
    if request.resume.begins_anew or database.execute("SELECT 1 FROM state").fetchone():
        return False
    adopt = partial(task.codec.adopt, copies=not request.resume.dry_run)
    for output in _siblings(request.target, task.command):
        ledger = f"{output}.ledger"
        try:
            with exclusive(output, wait=False):
                count = copy_results(ledger, database, task.command, facts, adopt)
        except (OutputError, sqlite3.Error) as error:
            log.info("the results in `%s` are not used: %s", request.shown(ledger), error)
            continue
        if count:
            log.info("%d results are taken from `%s`", count, request.shown(ledger))
            return True
    return False


def _siblings(target: str, command: str) -> Iterator[str]:
    """The outputs beside `target` that have a ledger, the largest first: it has the most results."""
    stem = os.path.splitext(target.removesuffix(".gz"))[0]
    others = [f"{stem}{suffix}" for suffix in _SUFFIXES.get(command, ()) if f"{stem}{suffix}" != target]
    with_ledger = [other for other in others if os.path.isfile(f"{other}.ledger")]
    yield from sorted(with_ledger, key=lambda other: os.path.getsize(f"{other}.ledger"), reverse=True)
