"""A batch run that takes over what is still right from the one before, and is taken over by the next."""

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
from beitcli.cli.question import Question
from beitcli.cli.run import Ahead, answers_to, find, kept_apart, settings_for, summarise
from beitcli.errors import ExitStatus, ModelError, OutputError
from beitcli.inputs.formats import DECODER, DECODER_EXTRAS
from beitcli.inputs.sources import empty_folders, look, shard
from beitcli.outputs.database import copied_database, digest_of, has_pictures_under, move_aside, open_database
from beitcli.outputs.destination import ReaderGone, writing
from beitcli.outputs.ledger import Answer, Answered, Ledger, State
from beitcli.outputs.summary import Tally
from beitcli.records import Failure, Found, Skipped, Source, printable
from beitcli.timings import Timings

if TYPE_CHECKING:
    from beitcli.pipeline import Settings

log = logging.getLogger(__name__)


_OWN = (".lock", ".ledger", ".ledger-wal", ".ledger-journal", ".ledger-features", ".part")
"""What a run adds to the name of its output for the files beside it."""

_PREPROCESSING = {"paper": "paper, cropped as torchvision does"}
"""Preprocessing as a fact, where it is not what it was by the same name: what was predicted by that is done again."""


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
        """The path of the ledger, or "" for one that is forgotten."""
        return "" if self.batch.no_ledger else f"{self.target}.ledger"


@dataclass(frozen=True, slots=True)
class Work(Generic[Answer, Answered]):
    """What is asked, and how the answers become files.

    `appearance` decides the bytes of the `outputs` besides the answers. `write` is given how many of the records are no
    failures.
    """

    question: Question[Answer, Answered]
    outputs: tuple[str, ...]
    appearance: str
    write: Callable[[int, Iterator[list[Answered | Failure]]], None]


WorkOf: TypeAlias = Callable[[Job], AbstractContextManager[Work[Answer, Answered]]]
"""Makes a job's work; what it opened is closed at the end."""


def resume(job: Job, work_of: WorkOf[Answer, Answered]) -> ExitStatus:
    """Does what is missing, changed or worth another try, then replaces the file by all that was asked for.

    With nothing to do nothing heavy is imported, and a file that is as it should be is not touched. Raises OutputError,
    with the file as it was, where the ledger or the file cannot be written or a folder has lost all its pictures.
    """
    tolerated, tally = job.output.tolerated(), Tally()
    found = _found(job, tally.skipped)
    with work_of(job) as work, answered(job, found, work.question, tally) as ledger:
        _write(work, ledger)
    return tally.exit_status(tolerated)


@contextmanager
def answered(
    job: Job, found: Iterable[Found], question: Question[Answer, Answered], tally: Tally
) -> Iterator[Ledger[Answer, Answered]]:
    """The ledger, with an answer to all that was found; at the end, or where it is stopped, comes the summary.

    Raises OutputError where the ledger cannot be written, also inside the block.
    """
    timings = Timings()
    if job.batch.fresh:
        move_aside(job.ledger)
    with open_database(job.ledger) as database:
        ledger = _ledger(job, question, database)
        try:
            pending = ledger.pending(_as_known(found, job), job.batch.again(), Counter())
            _answer(job, question, pending, ledger, tally, timings)
            _say_what_is_old(ledger, job.batch.prune)
            ledger.count(tally, is_complete=True)
            yield ledger
        except signals.Stopped:
            ledger.count(tally, is_complete=False)
            if job.ledger:
                again = "without --fresh it" if job.batch.fresh else "the same command"
                log.info("stopped: what was answered is in `%s`, and %s goes on from there", job.ledger, again)
            summarise(tally, timings, job.output.quiet)
            raise
    summarise(tally, timings, job.output.quiet)


def say_what_would_be_done(job: Job, work_of: WorkOf[Answer, Answered]) -> ExitStatus:
    """Prints how many pictures are in which state; changes nothing."""
    with suppress(ReaderGone), writing():
        print("\n".join(f"{count} {state}" for state, count in preview(job, work_of).items()))  # noqa: T201
    return ExitStatus.OK


def preview(job: Job, work_of: WorkOf[Answer, Answered]) -> dict[str, int]:
    """How many pictures are in which state, and how many answers in the ledger are gone; changes nothing."""
    states: Counter[State] = Counter({"new": 0, "changed": 0, "to retry": 0, "up to date": 0})
    found = _found(job, Skipped())
    with work_of(job) as work, copied_database("" if job.batch.fresh else job.ledger) as database:
        ledger = _ledger(job, work.question, database)
        for _ in ledger.pending(_as_known(found, job), job.batch.again(), states):
            pass
        return dict(states) | {"gone": ledger.gone()}


def _ledger(job: Job, question: Question[Answer, Answered], database: sqlite3.Connection) -> Ledger[Answer, Answered]:
    """This run on the ledger. Raises OutputError where it holds another command's answers."""
    ledger = Ledger(database, _facts(job, question, database), question.answers)
    if not ledger.is_for(question.command):
        name = printable(job.ledger)
        raise OutputError(f"`{name}` is not a ledger of `beit {question.command}`", "choose another file, or --fresh")
    return ledger


def _found(job: Job, skipped: Skipped) -> Iterator[Found]:
    """What is found.

    Raises OutputError where a folder has lost all its pictures: more likely a share is not mounted.
    """
    inputs, arguments = job.inputs, job.inputs.inputs or []
    empty = empty_folders(arguments, inputs.walk())
    if empty and exists(job.ledger) and not job.batch.fresh:
        if job.batch.prune:  # gone for good, and so nothing to complain of
            inputs = replace(inputs, inputs=[argument for argument in arguments if argument not in empty])
        else:
            _check_that_nothing_was_there(empty, job.ledger)
    return shard(find(inputs, skipped), *job.batch.part())


def _check_that_nothing_was_there(folders: list[str], ledger: str) -> None:
    with open_database(ledger) as database:
        missing = next((folder for folder in folders if has_pictures_under(folder, database)), None)
    if missing is not None:
        message = (
            f"there is no picture in `{printable(missing)}`, but there was: is it mounted, or are the options others?"
        )
        raise OutputError(message, "nothing has been touched; --prune forgets what was there")


def _as_known(found: Iterable[Found], job: Job) -> Iterator[Found]:
    """What was found, each file with what tells whether it is still the one that was answered."""
    return look(_without_own(kept_apart(found, job.batch.out), job.target))


def _without_own(found: Iterable[Found], target: str) -> Iterator[Found]:
    """What was found, a run's own files among it unread: to open and close one would lose the lock that is on it."""
    own = {target + suffix for suffix in _OWN}
    for item in found:
        if isinstance(item, Source) and item.location.endswith(_OWN) and realpath(item.location) in own:
            yield Failure(item, "not_an_image", "one of the files that this run keeps")
        else:
            yield item


def _answer(
    job: Job,
    question: Question[Answer, Answered],
    pending: Iterator[Source],
    ledger: Ledger[Answer, Answered],
    tally: Tally,
    timings: Timings,
) -> None:
    """Has the model answer what the ledger cannot."""

    def settings_of(ahead: Ahead) -> "Settings[Answer, Answered]":
        digest = not job.batch.no_dedupe
        settings = question.settings(
            settings_for(job.inputs, job.model, job.output, question.checkpoint, ahead, padded=True, digest=digest)
        )
        ledger.runs_in(settings.runtime.dtype)
        if job.model.compile is not None:
            return settings
        compiled = ledger.decided("compiled", settings.runtime.compiled)
        return replace(settings, runtime=replace(settings.runtime, compiled=compiled))

    with (
        notices.progress(job.output.quiet) as progress,
        closing(answers_to(pending, settings_of, timings, ledger.answer_of)) as answers,
    ):
        for records in answers:
            with signals.held():
                ledger.add(records)
                tally.add(records)
            signals.check()
            progress.update(len(records))


def _say_what_is_old(ledger: Ledger[Any, Any], prune: bool) -> None:
    if ledger.unrefreshed:
        log.info("%d URLs could not be asked whether they have changed, and keep their answers", ledger.unrefreshed)
    gone = ledger.gone()
    if gone and prune:
        ledger.prune()
        log.info("%d answers to what is not among the inputs any more are forgotten", gone)
    elif gone:
        log.info("%d answers in the ledger are to what is not among the inputs any more (--prune forgets them)", gone)


def _write(work: Work[Answer, Answered], ledger: Ledger[Answer, Answered]) -> None:
    appearance = f"{__version__} {work.appearance}"
    if not ledger.is_written(work.outputs, appearance):
        work.write(ledger.answered(), ledger.records())
        ledger.wrote(work.outputs, appearance)


def _facts(job: Job, question: Question[Any, Any], database: sqlite3.Connection) -> dict[str, str]:
    """What decides an answer, besides the picture."""
    content = hashlib.sha256()
    for path in question.checkpoint.files():
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
        **question.facts,
    }
