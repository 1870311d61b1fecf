"""A batch run that takes over what is still right from the one before, and is taken over by the next."""

import hashlib
import logging
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from os.path import basename, exists, realpath
from typing import TYPE_CHECKING

from beitcli import __version__, signals
from beitcli.cli import notices
from beitcli.cli.formats import FileFormat
from beitcli.cli.options import BatchOptions, InputOptions, ModelOptions, OutputOptions
from beitcli.cli.run import Ahead, answers_to, choose, find, layout_of, settings_for, summarise
from beitcli.errors import ExitStatus, ModelError, OutputError
from beitcli.inputs.formats import DECODER
from beitcli.inputs.sources import empty_folders, look, shard
from beitcli.model.checkpoint import Checkpoint
from beitcli.outputs.database import copied_database, digest_of, has_pictures_under, move_aside, open_database
from beitcli.outputs.destination import replaced_file, writing
from beitcli.outputs.ledger import Ledger, State
from beitcli.outputs.selection import Selection
from beitcli.outputs.summary import Tally
from beitcli.outputs.writers import Layout, writer
from beitcli.records import Failure, Found, Source, printable
from beitcli.timings import Timings

if TYPE_CHECKING:
    from beitcli.pipeline import Settings

log = logging.getLogger(__name__)


_OWN = (".lock", ".ledger", ".ledger-wal", ".ledger-journal", ".part")
"""What a run adds to the name of its output for the files beside it."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a run was asked for, in all its options; `target` is the output with all links resolved."""

    inputs: InputOptions
    model: ModelOptions
    output: OutputOptions
    batch: BatchOptions
    target: str

    @property
    def ledger(self) -> str:
        return f"{self.target}.ledger"


def resume(job: Job, file_format: FileFormat) -> ExitStatus:
    """Does what is missing, changed or worth another try, then replaces the file by all that was asked for.

    With nothing to do nothing heavy is imported, and a file that is as it should be is not touched. Raises OutputError,
    with the file as it was, where the ledger or the file cannot be written or a folder has lost all its pictures.
    """
    tolerated, tally, timings = job.output.tolerated(), Tally(), Timings()
    found = _found(job, tally.skipped)
    checkpoint, selection = choose(job.model, job.output)
    if job.batch.fresh:
        move_aside(job.ledger)
    with open_database(job.ledger) as database:
        ledger = Ledger(database, _facts(job, checkpoint, database), checkpoint.labels)
        try:
            _answer(job, checkpoint, ledger.pending(found, job.batch.again(), Counter()), ledger, tally, timings)
            _say_what_is_old(ledger, job.batch.prune)
            ledger.count(tally, is_complete=True)
            _write(job, layout_of(file_format, job.output, checkpoint), selection, ledger)
        except signals.Stopped:
            ledger.count(tally, is_complete=False)
            again = "without --fresh it" if job.batch.fresh else "the same command"
            log.info("stopped: what was answered is in `%s`, and %s goes on from there", job.ledger, again)
            summarise(tally, timings, job.output.quiet)
            raise
    summarise(tally, timings, job.output.quiet)
    return tally.exit_status(tolerated)


def preview(job: Job) -> dict[str, int]:
    """How many pictures are in which state, and how many answers in the ledger are gone; changes nothing."""
    states: Counter[State] = Counter({"new": 0, "changed": 0, "to retry": 0, "up to date": 0})
    found = _found(job, Counter())
    checkpoint, _ = choose(job.model, job.output)
    with copied_database("" if job.batch.fresh else job.ledger) as database:
        ledger = Ledger(database, _facts(job, checkpoint, database), checkpoint.labels)
        for _ in ledger.pending(found, job.batch.again(), states):
            pass
        return dict(states) | {"gone": ledger.gone()}


def _found(job: Job, skipped: Counter[str]) -> Iterator[Found]:
    """What is found, as the ledger wants to know it.

    Raises OutputError where a folder has lost all its pictures: more likely a share is not mounted.
    """
    inputs, arguments = job.inputs, job.inputs.inputs or []
    empty = empty_folders(arguments, inputs.walk())
    if empty and exists(job.ledger) and not job.batch.fresh:
        if job.batch.prune:  # gone for good, and so nothing to complain of
            inputs = replace(inputs, inputs=[argument for argument in arguments if argument not in empty])
        else:
            _check_that_nothing_was_there(empty, job.ledger)
    return look(_without_own(shard(find(inputs, skipped), *job.batch.part()), job.target))


def _check_that_nothing_was_there(folders: list[str], ledger: str) -> None:
    with open_database(ledger) as database:
        missing = next((folder for folder in folders if has_pictures_under(folder, database)), None)
    if missing is not None:
        message = (
            f"there is no picture in `{printable(missing)}`, but there was: is it mounted, or are the options others?"
        )
        raise OutputError(message, "nothing has been touched; --prune forgets what was there")


def _without_own(found: Iterable[Found], target: str) -> Iterator[Found]:
    """What was found, a run's own files among it unread: to open and close one would lose the lock that is on it."""
    own = {target + suffix for suffix in _OWN}
    for item in found:
        if isinstance(item, Source) and item.location.endswith(_OWN) and realpath(item.location) in own:
            yield Failure(item, "not_an_image", "one of the files that this run keeps")
        else:
            yield item


def _answer(
    job: Job, checkpoint: Checkpoint, pending: Iterator[Source], ledger: Ledger, tally: Tally, timings: Timings
) -> None:
    """Has the model answer what the ledger cannot."""

    def settings_of(ahead: Ahead) -> "Settings":
        digest = not job.batch.no_dedupe
        settings = settings_for(job.inputs, job.model, job.output, checkpoint, ahead, padded=True, digest=digest)
        ledger.runs_in(settings.runtime.dtype)
        if job.model.compile is not None:
            return settings
        compiled = ledger.decided("compiled", settings.runtime.compiled)
        return replace(settings, runtime=replace(settings.runtime, compiled=compiled))

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


def _say_what_is_old(ledger: Ledger, prune: bool) -> None:
    if ledger.unrefreshed:
        log.info("%d URLs could not be asked whether they have changed, and keep their answers", ledger.unrefreshed)
    gone = ledger.gone()
    if gone and prune:
        ledger.prune()
        log.info("%d answers to what is not among the inputs any more are forgotten", gone)
    elif gone:
        log.info("%d answers in the ledger are to what is not among the inputs any more (--prune forgets them)", gone)


def _write(job: Job, layout: Layout, selection: Selection, ledger: Ledger) -> None:
    appearance = f"{__version__} {layout} {selection}"
    if ledger.is_written(job.target, appearance):
        return
    with replaced_file(job.target, keeps_part=False) as stream, writer(stream, layout) as rows:
        for records in ledger.records():
            with writing():
                rows.write(selection.of(records))
    ledger.wrote(job.target, appearance)


def _facts(job: Job, checkpoint: Checkpoint, database: sqlite3.Connection) -> dict[str, str]:
    """What decides an answer, besides the picture."""
    labels = len(checkpoint.labels)
    content = hashlib.sha256()
    for path in checkpoint.files():
        try:
            content.update(f"{basename(path)} {digest_of(path, database)}\n".encode())
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
