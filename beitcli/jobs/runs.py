"""Runs of a ledger: what ran when, and a file of the results so far."""

import math
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import fields
from typing import Any

from beitcli.errors import OutputError, UsageError
from beitcli.jobs.observer import Observer
from beitcli.jobs.requests import Labels
from beitcli.ledger.codecs import ScoresCodec
from beitcli.ledger.database import open_database
from beitcli.ledger.feature_store import FeatureCodec
from beitcli.ledger.partial_results import PartialResults
from beitcli.ledger.runs import LastRun, RunRecord, last_run, stored_runs
from beitcli.outputs.destination import check_writable, is_stream, replaced_file, writing
from beitcli.outputs.feature_files import FeatureFile, check_suffix
from beitcli.outputs.formats import by_suffix
from beitcli.outputs.lock import exclusive
from beitcli.outputs.selection import Selection, indices_of
from beitcli.outputs.summary import Tally
from beitcli.outputs.writers import Layout, writer
from beitcli.records import Embedding, Failure, printable

_SQLITE = b"SQLite format 3\0"


def runs_of(file: str) -> list[RunRecord]:
    """The runs of a ledger, the first one first; `file` is the ledger or its output.

    Raises UsageError where there is no ledger, OutputError where it cannot be read, or a run is using it.
    """
    with _opened(_ledger_of(file)) as database:
        return stored_runs(database)


def export(file: str, out: str, observer: Observer) -> Tally:
    """Replace `out` by the results so far of the last run of a ledger; `file` is the ledger or its output.

    The format is that of the suffix of `out`, and the rows are those of the run's settings. Raises UsageError and
    OutputError where there is no ledger or no run, or `out` cannot be written.
    """
    ledger = _ledger_of(file)
    if is_stream(out) or os.path.realpath(out) in (ledger, _owner(ledger), os.path.realpath(file)):
        raise UsageError(f"`{printable(out)}` is no new file", "name a file beside the one of the run")
    check_writable(out)
    with _opened(ledger) as database, exclusive(out, wait=False):
        last = last_run(database)
        if last is None:
            raise OutputError(f"`{printable(file)}` has no run to export", "run it again, which keeps its results")
        if "shape" in last.layout:
            return _write_features(ledger, database, last, out, observer)
        return _write_records(database, last, out, observer)


def _write_records(database: sqlite3.Connection, last: LastRun, out: str, observer: Observer) -> Tally:
    file_format, tally = by_suffix(out), Tally()
    labels, chosen = last.layout["labels"], _labels(last.run.settings)
    top_k = min(chosen.top_k or len(labels), len(labels))
    threshold = -math.inf if chosen.threshold is None else chosen.threshold
    selection = Selection(threshold, indices_of(chosen.label or (), labels))
    results = PartialResults(database, last, ScoresCodec(labels, top_k))
    layout = Layout(file_format.name, top_k, file_format.gzip, provenance=results.provenance())
    observer.stage("writing")
    with replaced_file(out, keeps_part=False) as stream, writer(stream, layout) as rows:
        for records in results.records():
            with writing():
                rows.write(selection.of(records))
            tally.add(records)
            observer.progress(len(records))
    return tally


def _write_features(ledger: str, database: sqlite3.Connection, last: LastRun, out: str, observer: Observer) -> Tally:
    check_suffix(out)
    shape, dtype, tally = tuple(last.layout["shape"]), last.layout["dtype"], Tally()
    with closing(FeatureCodec(f"{ledger}-features", ledger, shape, dtype)) as vectors:
        results = PartialResults(database, last, vectors)

        def counted() -> Iterator[list[Embedding | Failure]]:
            for records in results.records():
                yield records
                tally.add(records)
                observer.progress(len(records))

        observer.stage("writing")
        FeatureFile(out, shape, dtype).write(results.count_successes(), counted(), results.provenance())
    return tally


def _labels(settings: Mapping[str, Any]) -> Labels:
    return Labels(**{field.name: settings[field.name] for field in fields(Labels) if field.name in settings})


def _ledger_of(file: str) -> str:
    """The path of the ledger. Raises UsageError if there is none."""
    path = os.path.realpath(file)
    for ledger in (path, f"{path}.ledger"):
        if os.path.isfile(ledger) and _is_database(ledger):
            return ledger
    raise UsageError(
        f"`{printable(file)}` has no ledger", "name the FILE of `beit batch`, `embed` or `eval`, or its `ledger=`"
    )


def _is_database(path: str) -> bool:
    try:
        with open(path, "rb") as stream:
            return stream.read(len(_SQLITE)) == _SQLITE
    except OSError as error:
        raise OutputError(f"cannot read `{printable(path)}`: {error.strerror}") from error


def _owner(ledger: str) -> str:
    """The file whose lock is that of the ledger."""
    return ledger.removesuffix(".ledger")


@contextmanager
def _opened(ledger: str) -> Iterator[sqlite3.Connection]:
    with exclusive(_owner(ledger), wait=False), open_database(ledger) as database:
        yield database
