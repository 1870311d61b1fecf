"""Records of runs: in the ledger, and for machines in a file of its own."""

import json
import os
import signal
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields, replace
from datetime import datetime
from os.path import realpath
from typing import Any, Protocol

from beitcli import __version__, signals
from beitcli.errors import BeitError, ExitStatus, OutputError
from beitcli.jobs.observer import Report
from beitcli.jobs.requests import Request
from beitcli.jobs.tasks import Task
from beitcli.ledger.database import cached_digest
from beitcli.ledger.runs import RunRecord
from beitcli.model.checkpoint import Checkpoint
from beitcli.outputs.destination import ReaderClosed, replaced_file, writing
from beitcli.outputs.summary import Tally

_SHOWN_ELSEWHERE = ("inputs", "model")
"""Fields left out of the settings: inputs may be thousands, and URLs with passwords; the model has a field."""


class RunStore(Protocol):
    """Store of one run: a ledger, or nothing."""

    def begin_run(self, run: RunRecord) -> None: ...
    def store_run(self, run: RunRecord) -> None: ...
    def end_run(self, run: RunRecord) -> None: ...


class Unstored:
    """Store of a run that keeps no ledger."""

    def begin_run(self, run: RunRecord) -> None: ...
    def store_run(self, run: RunRecord) -> None: ...
    def end_run(self, run: RunRecord) -> None: ...


def begun(request: Request, task: Task[Any], digest: str) -> RunRecord:
    """A run that begins now."""
    return RunRecord(
        command=task.command,
        started=_now(),
        host=socket.gethostname(),
        process=os.getpid(),
        version=__version__,
        model=task.checkpoint.name,
        digest=digest,
        settings=_settings(request) | dict(task.settings),
        counts=_work(Tally()),
    )


def remove_summary(request: Request) -> None:
    """Remove the file of an earlier summary: there is none while a run goes on, after it was killed or did not begin.

    Raises OutputError.
    """
    if request.resume.summary:
        with writing(), suppress(FileNotFoundError):
            os.unlink(realpath(request.resume.summary))


@contextmanager
def recorded(run: RunRecord, request: Request, report: Report, store: RunStore) -> Iterator[Callable[[], None]]:
    """Record the run: its begin, its state whenever the function is called, and its end, by error or signal too."""
    store.begin_run(run)
    try:
        yield lambda: store.store_run(replace(run, counts=_work(report.tally)))
        counts = _counts(report)
        ended = replace(run, ended=_now(), counts=counts, exit_status=report.tally.exit_status(request.tolerated))
        _summarize(request, ended)
    except (BeitError, ReaderClosed, signals.Stopped, sqlite3.Error) as reason:
        ended = _ended_by(reason, run, report)
        with suppress(OutputError, sqlite3.Error):  # the reason itself is raised
            store.end_run(ended)
        with suppress(OutputError):
            _summarize(request, ended)
        raise
    store.end_run(ended)


def model_digest(checkpoint: Checkpoint, database: sqlite3.Connection) -> str:
    """Digest of all files of a model that affect a result. Raises ModelError where one cannot be read."""
    return checkpoint.content_digest(lambda path: cached_digest(path, database))


def _ended_by(reason: BaseException, run: RunRecord, report: Report) -> RunRecord:
    match reason:
        case signals.Stopped():
            end: dict[str, Any] = {"signal": signal.Signals(reason.signal_number).name, "counts": _counts(report)}
        case ReaderClosed():
            end = {"exit_status": ExitStatus.OK, "counts": _counts(report)}
        case _:
            status = reason.exit_status if isinstance(reason, BeitError) else ExitStatus.FAILED
            end = {"exit_status": status, "error": str(reason), "counts": _work(report.tally)}
    return replace(run, ended=_now(), **end)


def _summarize(request: Request, run: RunRecord) -> None:
    """Write the file of the summary, if one is requested."""
    if request.resume.summary:
        text = json.dumps(asdict(run), indent=2)
        with replaced_file(request.resume.summary, keeps_part=False) as stream, writing():
            stream.write(f"{text}\n".encode())


def _now() -> str:
    return datetime.now().astimezone().isoformat(" ", "seconds")


def _settings(request: Request) -> dict[str, Any]:
    """The options given another value than their default."""
    parts = (request.inputs, request.limits, request.model, request.compute, request.labels, request.resume)
    values = [(field.name, getattr(part, field.name), field.default) for part in parts for field in fields(part)]
    return {name: value for name, value, usual in values if value != usual and name not in _SHOWN_ELSEWHERE}


def _work(tally: Tally) -> dict[str, Any]:
    """Counts of a run's own work."""
    counts = {"decoded": tally.decoded, "reused": tally.reused, "failed": tally.failed.total()}
    return counts | {"codes": dict(tally.failed.most_common())}


def _counts(report: Report) -> dict[str, Any]:
    """Counts of the requested images, as in the summary, and the images a second of the run's own work."""
    tally = report.tally
    rate = tally.processed / report.timings.total if tally.processed else None
    counts = {"images": tally.images, "kept": tally.kept, **_work(tally)}
    return counts | {"skipped": dict(tally.skipped), "images_per_second": rate}
