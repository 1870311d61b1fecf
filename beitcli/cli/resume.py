"""Resumable runs: reuse the valid results of earlier runs, compute the rest."""

import hashlib
import logging
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from os.path import basename, exists, realpath
from typing import TYPE_CHECKING, Any, Generic, TypeAlias

from beitcli import __version__, signals
from beitcli.cli import notices
from beitcli.cli.options import BatchOptions, InputOptions, ModelOptions, OutputOptions
from beitcli.cli.run import Lookahead, find, guard_inputs, predict_records, settings_for, summarise
from beitcli.cli.tasks import LedgerTask
from beitcli.errors import ExitStatus, ModelError, OutputError
from beitcli.inputs.formats import DECODER, DECODER_EXTRAS
from beitcli.inputs.sources import empty_folders, look, shard
from beitcli.outputs.database import copied_database, digest_of, has_images_under, move_aside, open_database
from beitcli.outputs.destination import ReaderClosed, writing
from beitcli.outputs.ledger import Ledger, Result, ResultRecord, State
from beitcli.outputs.summary import Tally
from beitcli.records import Failure, Found, Skipped, Source, printable
from beitcli.timings import Timings

if TYPE_CHECKING:
    from beitcli.pipeline import Settings

log = logging.getLogger(__name__)


_OWN_SUFFIXES = (".lock", ".ledger", ".ledger-wal", ".ledger-journal", ".ledger-features", ".part")
"""Suffixes of the files that a run keeps beside its output."""

_PREPROCESSING = {"paper": "paper, cropped as torchvision does"}
"""Fingerprint of a preprocessing that changed under the same name: older results are computed again."""


@dataclass(frozen=True, slots=True)
class Job:
    """All options of a run; `target` is the output with all links resolved."""

    inputs: InputOptions
    model: ModelOptions
    output: OutputOptions
    batch: BatchOptions
    target: str

    @property
    def ledger(self) -> str:
        """The path of the ledger, or "" for a temporary one."""
        return "" if self.batch.no_ledger else f"{self.target}.ledger"


@dataclass(frozen=True, slots=True)
class Work(Generic[Result, ResultRecord]):
    """Task of a run, and the writer of its `outputs`.

    The bytes of the outputs depend on the results and on `appearance`. `write` takes the number of successful records
    and all records.
    """

    task: LedgerTask[Result, ResultRecord]
    outputs: tuple[str, ...]
    appearance: str
    write: Callable[[int, Iterator[list[ResultRecord | Failure]]], None]


WorkFactory: TypeAlias = Callable[[Job], AbstractContextManager[Work[Result, ResultRecord]]]
"""Context manager that makes the work of a job, and closes its resources."""


def resume(job: Job, make_work: WorkFactory[Result, ResultRecord]) -> ExitStatus:
    """Process missing or changed images and failures that may pass, then replace the output file by all records.

    With nothing to do, nothing heavy is imported and an up-to-date file is not touched. Raises OutputError and leaves
    the file unchanged if the ledger or the file cannot be written, or a folder has lost all its images.
    """
    tolerated, tally = job.output.tolerated(), Tally()
    found = _find(job, tally.skipped)
    with make_work(job) as work, updated_ledger(job, found, work.task, tally) as ledger:
        _write(work, ledger)
    return tally.exit_status(tolerated)


@contextmanager
def updated_ledger(
    job: Job, found: Iterable[Found], task: LedgerTask[Result, ResultRecord], tally: Tally
) -> Iterator[Ledger[Result, ResultRecord]]:
    """The ledger with a result for every input; prints the summary at the end, or when stopped.

    Raises OutputError if the ledger cannot be written, also inside the block.
    """
    timings = Timings()
    if job.batch.fresh:
        move_aside(job.ledger)
    with open_database(job.ledger) as database:
        ledger = _ledger(job, task, database)
        try:
            pending = ledger.pending(_with_identities(found, job), job.batch.again(), Counter())
            _predict(job, task, pending, ledger, tally, timings)
            _report_stale(ledger, job.batch.prune)
            ledger.count(tally, is_complete=True)
            yield ledger
        except signals.Stopped:
            ledger.count(tally, is_complete=False)
            if job.ledger:
                command = "the same command without --fresh" if job.batch.fresh else "the same command"
                log.info("stopped: the results so far are in `%s`; %s goes on from there", job.ledger, command)
            summarise(tally, timings, job.output.quiet)
            raise
    summarise(tally, timings, job.output.quiet)


def print_preview(job: Job, make_work: WorkFactory[Result, ResultRecord]) -> ExitStatus:
    """Print the number of images in each state; change nothing."""
    with suppress(ReaderClosed), writing():
        print("\n".join(f"{count} {state}" for state, count in preview(job, make_work).items()))  # noqa: T201
    return ExitStatus.OK


def preview(job: Job, make_work: WorkFactory[Result, ResultRecord]) -> dict[str, int]:
    """Number of images in each state, and of results whose image is no longer among the inputs; changes nothing."""
    states: Counter[State] = Counter({"new": 0, "changed": 0, "to retry": 0, "up to date": 0})
    found = _find(job, Skipped())
    with make_work(job) as work, copied_database("" if job.batch.fresh else job.ledger) as database:
        ledger = _ledger(job, work.task, database)
        for _ in ledger.pending(_with_identities(found, job), job.batch.again(), states):
            pass
        return dict(states) | {"gone": ledger.count_removed()}


def _ledger(
    job: Job, task: LedgerTask[Result, ResultRecord], database: sqlite3.Connection
) -> Ledger[Result, ResultRecord]:
    """Ledger of this run. Raises OutputError for a ledger of another command."""
    ledger = Ledger(database, _facts(job, task, database), task.codec)
    if not ledger.is_for(task.command):
        name = printable(job.ledger)
        raise OutputError(f"`{name}` is not a ledger of `beit {task.command}`", "choose another file, or --fresh")
    return ledger


def _find(job: Job, skipped: Skipped) -> Iterator[Found]:
    """Inputs of this run.

    Raises OutputError if a folder has lost all its images: most likely a share is not mounted.
    """
    inputs, arguments = job.inputs, job.inputs.inputs or []
    empty = empty_folders(arguments, inputs.walk())
    if empty and exists(job.ledger) and not job.batch.fresh:
        if job.batch.prune:  # removed on purpose
            inputs = replace(inputs, inputs=[argument for argument in arguments if argument not in empty])
        else:
            _check_not_unmounted(empty, job.ledger)
    return shard(find(inputs, skipped), *job.batch.part())


def _check_not_unmounted(folders: list[str], ledger: str) -> None:
    with open_database(ledger) as database:
        missing = next((folder for folder in folders if has_images_under(folder, database)), None)
    if missing is not None:
        raise OutputError(
            f"there is no image in `{printable(missing)}`, unlike before: is the share mounted, or did filters change?",
            "nothing has been changed; --prune deletes the results of its images",
        )


def _with_identities(found: Iterable[Found], job: Job) -> Iterator[Found]:
    """Inputs, each file with the size and time that show whether it has changed."""
    return look(_refuse_own_files(guard_inputs(found, job.batch.out), job.target))


def _refuse_own_files(found: Iterable[Found], target: str) -> Iterator[Found]:
    """Inputs, the run's own files as unread failures: opening and closing one would release its lock."""
    own = {target + suffix for suffix in _OWN_SUFFIXES}
    for item in found:
        if isinstance(item, Source) and item.location.endswith(_OWN_SUFFIXES) and realpath(item.location) in own:
            yield Failure(item, "not_an_image", "one of the files that this run keeps")
        else:
            yield item


def _predict(
    job: Job,
    task: LedgerTask[Result, ResultRecord],
    pending: Iterator[Source],
    ledger: Ledger[Result, ResultRecord],
    tally: Tally,
    timings: Timings,
) -> None:
    """Run the model on the images that the ledger lacks."""

    def settings_of(lookahead: Lookahead) -> "Settings[Result, ResultRecord]":
        digest = not job.batch.no_dedupe
        settings = task.settings(
            settings_for(job.inputs, job.model, job.output, task.checkpoint, lookahead, padded=True, digest=digest)
        )
        ledger.set_dtype(settings.runtime.dtype)
        if job.model.compile is not None:
            return settings
        compiled = ledger.remembered("compiled", settings.runtime.compiled)
        return replace(settings, runtime=replace(settings.runtime, compiled=compiled))

    with (
        notices.progress(job.output.quiet) as progress,
        closing(predict_records(pending, settings_of, timings, ledger.result_of)) as batches,
    ):
        for records in batches:
            with signals.held():
                ledger.add(records)
                tally.add(records)
            signals.check()
            progress.update(len(records))


def _report_stale(ledger: Ledger[Any, Any], prune: bool) -> None:
    if ledger.unverified_urls:
        log.info("%d URLs could not be checked for changes and keep their results", ledger.unverified_urls)
    removed = ledger.count_removed()
    if removed and prune:
        ledger.prune()
        log.info("%d results of images no longer among the inputs are deleted", removed)
    elif removed:
        log.info("%d results in the ledger are of images no longer among the inputs (--prune deletes them)", removed)


def _write(work: Work[Result, ResultRecord], ledger: Ledger[Result, ResultRecord]) -> None:
    appearance = f"{__version__} {work.appearance}"
    if not ledger.is_written(work.outputs, appearance):
        work.write(ledger.count_successes(), ledger.records())
        ledger.mark_written(work.outputs, appearance)


def _facts(job: Job, task: LedgerTask[Any, Any], database: sqlite3.Connection) -> dict[str, str]:
    """Everything except the image that a result depends on."""
    content = hashlib.sha256()
    for path in task.checkpoint.files():
        try:
            content.update(f"{basename(path)} {digest_of(path, database)}\n".encode())
        except OSError as error:
            raise ModelError(f"cannot read `{path}`: {error.strerror}") from error
    return {
        "model": content.hexdigest()[:16],
        "--preprocess": _PREPROCESSING.get(job.model.preprocess, job.model.preprocess),
        "--image-size": str(job.model.image_size or "the model's"),
        "--dtype": job.model.precision,
        "--max-pixels": str(job.inputs.max_pixels),
        "--fast-decode": "on" if job.inputs.fast_decode else "off",
        "decoder": str(DECODER),
        "Pillow": ".".join(version("pillow").split(".")[:2]),
        "simplejpeg": ".".join(version("simplejpeg").split(".")[:2]),
        **{extra: "there" if find_spec(module) else "not there" for extra, module in DECODER_EXTRAS.items()},
        **task.facts,
    }
