"""A batch run that takes over what is still right from the one before, and is taken over by the next."""

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from os.path import basename, exists, realpath
from typing import TYPE_CHECKING

from beitcli import signals
from beitcli.cli import notices
from beitcli.cli.formats import FileFormat
from beitcli.cli.options import BatchOptions, InputOptions, ModelOptions, OutputOptions
from beitcli.cli.run import answers_to, find, layout_of, settings_for, summarise
from beitcli.errors import ExitStatus, ModelError, OutputError
from beitcli.inputs.formats import DECODER
from beitcli.inputs.sources import look, shard
from beitcli.model.checkpoint import Checkpoint
from beitcli.outputs.database import digest_of, move_aside, open_database
from beitcli.outputs.destination import replaced_file, writing
from beitcli.outputs.ledger import Again, Ledger, State
from beitcli.outputs.selection import Selection
from beitcli.outputs.summary import Tally
from beitcli.outputs.writers import writer
from beitcli.records import Source, printable
from beitcli.timings import Timings

if TYPE_CHECKING:
    from beitcli.pipeline import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """What a run was asked for, in all its options, and the model that is to answer."""

    inputs: InputOptions
    model: ModelOptions
    output: OutputOptions
    batch: BatchOptions
    checkpoint: Checkpoint
    selection: Selection

    @property
    def ledger(self) -> str:
        return f"{realpath(self.batch.out)}.ledger"


def resume(job: Job, file_format: FileFormat) -> ExitStatus:
    """Does what is missing, changed or worth another try, then replaces the file by all that was asked for.

    With nothing to do nothing heavy is imported, and a file that is as it should be is not touched. Raises OutputError,
    with the file as it was, where the ledger or the file cannot be written.
    """
    tolerated = job.output.tolerated()
    tally, timings = Tally(), Timings()
    if job.batch.fresh:
        move_aside(job.ledger)
    with _ledger(job, job.ledger) as ledger:
        try:
            _answer(job, ledger, tally, timings)
            _say_what_is_gone(ledger, job.batch.prune)
            _write(job, ledger, file_format)
        except signals.Stopped:
            ledger.count(tally)
            log.info("stopped: what was answered is in `%s`, and the same command goes on from there", job.ledger)
            summarise(tally, timings, job.output.quiet)
            raise
        ledger.count(tally)
    summarise(tally, timings, job.output.quiet)
    return tally.exit_status(tolerated)


def preview(job: Job) -> dict[str, int]:
    """How many pictures are in which state, and how many answers in the ledger are gone; changes nothing."""
    states: Counter[State] = Counter({"new": 0, "changed": 0, "to retry": 0, "up to date": 0})
    path = job.ledger if exists(job.ledger) and not job.batch.fresh else ""
    with _ledger(job, path) as ledger:
        for _ in _pending(job, ledger, Counter(), states):
            pass
        return dict(states) | {"gone": ledger.gone()}


@contextmanager
def _ledger(job: Job, path: str) -> Iterator[Ledger]:
    with open_database(path) as database:
        yield Ledger(database, _facts(job, partial(digest_of, database=database)), job.checkpoint.labels)


def _answer(job: Job, ledger: Ledger, tally: Tally, timings: Timings) -> None:
    """Has the model answer what the ledger cannot."""

    def settings_of() -> "Settings":
        chosen = settings_for(
            job.inputs, job.model, job.output, job.checkpoint, padded=True, digest=not job.batch.no_dedupe
        )
        ledger.runs_in(chosen.runtime.dtype)
        return chosen

    pending = _pending(job, ledger, tally.skipped, Counter())
    with (
        notices.progress(job.output.quiet) as progress,
        closing(answers_to(pending, settings_of, timings, ledger.scores_of)) as answers,
    ):
        for records in answers:
            with signals.held():
                ledger.add(records)
                tally.add(records)
            signals.check()
            progress.update(len(records))


def _pending(job: Job, ledger: Ledger, skipped: Counter[str], states: Counter[State]) -> Iterator[Source]:
    def stop_where_a_share_is_missing(folder: str) -> None:
        if not job.batch.prune and ledger.has_pictures_under(folder):
            raise OutputError(
                f"there is no picture in `{printable(folder)}`, but there was: is it mounted?",
                "--prune forgets them; nothing has been changed",
            )

    found = shard(find(job.inputs, skipped, stop_where_a_share_is_missing), *job.batch.part())
    again = Again(errors=job.batch.retry_errors, urls=job.batch.refresh_urls)
    return ledger.pending(look(found), again, states)


def _say_what_is_gone(ledger: Ledger, prune: bool) -> None:
    gone = ledger.gone()
    if gone and prune:
        ledger.prune()
        log.info("%d answers to what is not among the inputs any more are forgotten", gone)
    elif gone:
        log.info("%d answers in the ledger are to what is not among the inputs any more (--prune forgets them)", gone)


def _write(job: Job, ledger: Ledger, file_format: FileFormat) -> None:
    layout = layout_of(file_format, job.output, job.checkpoint)
    target, appearance = realpath(job.batch.out), f"{layout} {job.selection}"
    if ledger.is_written(target, appearance):
        return
    with replaced_file(target, keeps_part=False) as stream, writer(stream, layout) as rows:
        for records in ledger.records():
            with writing():
                rows.write(job.selection.of(records))
    ledger.wrote(target, appearance)


def _facts(job: Job, digest: Callable[[str], str]) -> dict[str, str]:
    """What decides an answer, besides the picture."""
    labels = len(job.checkpoint.labels)
    content = hashlib.sha256()
    for path in job.checkpoint.files():
        try:
            content.update(f"{basename(path)} {digest(path)}\n".encode())
        except OSError as error:
            raise ModelError(f"cannot read `{path}`: {error.strerror}") from error
    return {
        "model": content.hexdigest()[:16],
        "--preprocess": job.model.preprocess,
        "--image-size": str(job.model.image_size or "the model's"),
        "--dtype": job.model.precision,
        "--top-k": str(min(job.output.top_k or labels, labels)),
        "--max-pixels": str(job.inputs.max_pixels),
        "--fast-decode": "on" if job.inputs.fast_decode else "off",
        "decoder": str(DECODER),
        "Pillow": ".".join(version("pillow").split(".")[:2]),
        "heif": "there" if find_spec("pillow_heif") else "not there",
    }
