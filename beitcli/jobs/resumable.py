"""A run over a ledger: reuse the valid results of earlier runs, compute the rest."""

import logging
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, Generic, TypeVar

from beitcli import __version__, signals
from beitcli.errors import OutputError
from beitcli.inputs.formats import DECODER, DECODER_EXTRAS
from beitcli.jobs.discovery import with_identities
from beitcli.jobs.distribution import worker_count
from beitcli.jobs.engine import RunContext, helpful_stages, plan_of, predict_records
from beitcli.jobs.observer import Observer, Report
from beitcli.jobs.recording import begun, model_digest, recorded
from beitcli.jobs.requests import Request
from beitcli.jobs.siblings import begin_with_sibling
from beitcli.jobs.tasks import Task
from beitcli.ledger.database import copied_database, move_aside, open_database
from beitcli.ledger.ledger import Ledger, Recompute, State
from beitcli.ledger.output_files import edited, keep, outputs_of
from beitcli.ledger.validity import NOT_THERE, THERE
from beitcli.outputs.lock import exclusive
from beitcli.outputs.provenance import Provenance
from beitcli.records import Failure, Found, ResultRecord, Source, printable
from beitcli.workers.messages import Chosen
from beitcli.workers.run import StoredResults

log = logging.getLogger(__name__)

_PREPROCESSING = {"paper": "paper, cropped as torchvision does"}
"""Fingerprint of a preprocessing that changed under the same name: older results are computed again."""


_PASSED_AT_ONCE = 1000
"""Images that need no work, after which the observer hears of them."""

_Part = TypeVar("_Part")


@dataclass(frozen=True, slots=True)
class Files(Generic[ResultRecord]):
    """Output files of a run, whose bytes depend on the results and on `appearance`.

    `write` takes the number of successful records, all records and their provenance.
    """

    paths: tuple[str, ...]
    appearance: str
    write: Callable[[int, Iterator[list[ResultRecord | Failure]], Provenance], None]


@contextmanager
def updated_ledger(
    request: Request, found: Iterable[Found], task: Task[ResultRecord], report: Report, observer: Observer
) -> Iterator[Ledger[ResultRecord]]:
    """The ledger with a result for every input; the observer gets the summary at the end, or when stopped.

    With nothing to do, nothing heavy is imported. Raises OutputError if the ledger cannot be written, also inside the
    block.
    """
    tally, resume = report.tally, request.resume
    tally.helpful = helpful_stages(request, task)
    with _opened(request) as (database, replaced):
        has_siblings = begin_with_sibling(request, task, database, partial(_facts, request, task, database))
        ledger = _ledger(request, task, database)
        if replaced is not None:
            ledger.outputs = replaced
        run = begun(request, task, ledger.facts["model"])
        with recorded(run, request, report, ledger) as record_counts:
            try:
                pending = _pending(with_identities(found, request), resume.recompute(), ledger, observer)
                _predict(request, task, pending, ledger, report, observer, record_counts)
                if has_siblings:  # whose other images are none of this output
                    ledger.prune()
                _report_stale(ledger, resume.prune, request.shares_ledger)
                ledger.count(tally, is_complete=True)
                yield ledger
            except signals.Stopped:
                ledger.count(tally, is_complete=False)
                if request.ledger:
                    command = "the same command without `fresh=True`" if resume.fresh else "the same command"
                    kept = request.shown(request.ledger)
                    log.info("stopped: the results so far are in `%s`; %s goes on from there", kept, command)
                observer.summary(report)
                raise
    observer.summary(report)


@contextmanager
def _opened(request: Request) -> Iterator[tuple[sqlite3.Connection, str | None]]:
    """The database of the ledger, locked where the lock of the output is not that of the ledger.

    With it the versions of the output in the ledger that this one replaces, if it does.
    """
    ledger, replaced = request.ledger, None
    owner = ledger.removesuffix(".ledger")
    with exclusive(owner, request.resume.wait) if request.shares_ledger else nullcontext():
        if request.resume.fresh:
            replaced = outputs_of(ledger, _shared_output(request))
            move_aside(ledger)
        with open_database(ledger) as database:
            yield database, replaced


def _shared_output(request: Request) -> str:
    """The name of the output in a ledger that it shares; "" in its own."""
    return request.target if request.shares_ledger else ""


def write_files(request: Request, files: Files[ResultRecord], ledger: Ledger[ResultRecord], observer: Observer) -> None:
    """Replace the output files by all records, unless they are what the ledger has written already.

    Files that somebody has edited since then are kept under another name.
    """
    appearance = f"{__version__} {files.appearance}"
    if ledger.is_written(files.paths, appearance):
        if ledger.outputs is None:
            ledger.mark_written(files.paths, appearance)
        return
    if ledger.shares_nothing() and os.path.exists(files.paths[0]):
        log.warning(
            "none of the %d images of this run was in `%s` before, and its rows are replaced: to add images, name all "
            "of them in one run, or choose another `out=` and merge",
            *(ledger.requested, request.shown(files.paths[0])),
        )
    keep_edited(request, files.paths, ledger)
    observer.stage("writing", ledger.requested)
    files.write(ledger.count_successes(), _reporting(ledger.records(), observer), ledger.provenance())
    ledger.mark_written(files.paths, appearance)


def keep_edited(request: Request, paths: Sequence[str], ledger: Ledger[Any]) -> None:
    """Keep the files that are not what this ledger's last run wrote under another name, and log it."""
    if not request.ledger:  # nothing knows what the last run wrote
        return
    for path in edited(paths, ledger.outputs):
        names = map(request.shown, (path, keep(path)))
        log.warning("`%s` is not what the last run wrote: what it held is in `%s`", *names)


def _reporting(parts: Iterator[list[_Part]], observer: Observer) -> Iterator[list[_Part]]:
    for part in parts:
        yield part
        observer.progress(len(part))


def preview(request: Request, found: Iterable[Found], task: Task[ResultRecord]) -> dict[str, int]:
    """Number of images in each state, and of results whose image is no longer among the inputs; changes nothing."""
    states: Counter[State] = Counter({"new": 0, "changed": 0, "to retry": 0, "up to date": 0})
    with copied_database("" if request.resume.fresh else request.ledger) as database:
        begin_with_sibling(request, task, database, partial(_facts, request, task, database))
        ledger = _ledger(request, task, database)
        for _ in ledger.pending(with_identities(found, request), request.resume.recompute(), states):
            pass
        return dict(states) | {"gone": ledger.count_removed()} | worker_count(request.compute)


def _ledger(request: Request, task: Task[ResultRecord], database: sqlite3.Connection) -> Ledger[ResultRecord]:
    """Ledger of this run. Raises OutputError for a ledger of another command."""
    ledger = Ledger(database, _facts(request, task, database), task.codec, _shared_output(request))
    if not ledger.is_for(task.command):
        name = printable(request.shown(request.ledger))
        raise OutputError(f"`{name}` is not a ledger of `beit {task.command}`", "choose another file, or `fresh=True`")
    ledger.set_model(task.checkpoint.name)
    return ledger


def _pending(found: Iterable[Found], again: Recompute, ledger: Ledger[Any], observer: Observer) -> Iterator[Source]:
    """The images that need a result; the observer gets the number of the others as they are passed over."""
    passed = 0

    def counted() -> Iterator[Found]:
        nonlocal passed
        for item in found:
            if passed >= _PASSED_AT_ONCE:
                observer.kept(passed)
                passed = 0
            passed += 1
            yield item

    for source in ledger.pending(counted(), again, Counter()):
        if passed > 1:
            observer.kept(passed - 1)
        passed = 0
        yield source
    observer.kept(passed)


def _predict(
    request: Request,
    task: Task[ResultRecord],
    pending: Iterator[Source],
    ledger: Ledger[ResultRecord],
    report: Report,
    observer: Observer,
    record_counts: Callable[[], None],
) -> None:
    """Run the model on the images that the ledger lacks; the counts so far are recorded with the results."""

    def decide(chosen: Chosen) -> Chosen:
        ledger.set_device(chosen.device, chosen.dtype)
        if request.compute.compile is not None:
            return chosen
        return replace(chosen, compiled=ledger.remembered("compiled", chosen.compiled))

    plan = plan_of(request, task, padded=True, digest=not request.resume.no_dedupe)
    context = RunContext(
        timings=report.timings,
        decide=decide,
        known=StoredResults(ledger.result_of, ledger.digests_of_results),
        on_workers=observer.workers,
        model_digest=ledger.facts["model"],
        ordered=False,  # the ledger knows the order, and a result is kept as soon as it is there
    )
    with closing(predict_records(pending, plan, context)) as batches:
        for records in batches:
            with signals.held():
                report.tally.add(records)
                record_counts()
                ledger.add(records)
            signals.check()
            observer.progress(len(records))


def _report_stale(ledger: Ledger[Any], prune: bool, shared: bool) -> None:
    if ledger.unverified_urls:
        log.info("%d URLs could not be checked for changes and keep their results", ledger.unverified_urls)
    removed = ledger.count_removed()
    if removed and prune:
        ledger.prune()
        log.info("%d results of images no longer among the inputs are deleted", removed)
    elif removed and not shared:  # they may be another output's
        log.info(
            "%d results in the ledger are of images no longer among the inputs (`prune=True` deletes them)", removed
        )


def _facts(request: Request, task: Task[Any], database: sqlite3.Connection) -> dict[str, str]:
    """Everything except the image that a result depends on."""
    model, limits = request.model, request.limits
    return {
        "model": model_digest(task.checkpoint, database),
        "--preprocess": _PREPROCESSING.get(model.preprocess, model.preprocess),
        "--image-size": str(model.image_size or "the model's"),
        "--dtype": request.compute.precision,
        "--max-pixels": str(limits.max_pixels),
        "--fast-decode": "on" if limits.fast_decode else "off",
        "decoder": str(DECODER),
        "Pillow": ".".join(version("pillow").split(".")[:2]),
        "simplejpeg": ".".join(version("simplejpeg").split(".")[:2]),
        **{extra: THERE if find_spec(module) else NOT_THERE for extra, module in DECODER_EXTRAS.items()},
        **task.facts,
    }
