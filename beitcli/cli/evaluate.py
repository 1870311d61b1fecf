"""`beit eval`: how good a model is on pictures whose classes are known."""

import importlib.util
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from beitcli import __version__, signals
from beitcli.cli import notices
from beitcli.cli.options import InputOptions, ModelOptions, OutputOptions, Without, examples, with_options
from beitcli.cli.run import Ahead, answers_to, say_if_demo, settings_for, summarise
from beitcli.errors import OutputError, UsageError
from beitcli.evaluation.truth import Match, match
from beitcli.inputs.labelled import Labelled, by_folder, by_table, classes_without_pictures
from beitcli.inputs.sources import Walk
from beitcli.model.checkpoint import Checkpoint, open_checkpoint
from beitcli.outputs.destination import ReaderGone, check_writable, is_stream, replaced_file, stream_to, writing
from beitcli.outputs.summary import Tally
from beitcli.records import Failure, Record, Source, printable
from beitcli.tables import show
from beitcli.timings import Timings

if TYPE_CHECKING:
    from beitcli.evaluation.report import Evaluation
    from beitcli.pipeline import ClassificationSettings

log = logging.getLogger(__name__)

EXAMPLES = examples(
    "beit eval ./val -m base-224 --preprocess paper",
    "beit eval ./val -m demo --json eval.json --plots .",
    "beit eval --labels truth.csv -m ./my-model",
)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is evaluated and how, as the options say."""

    truth: str
    inputs: InputOptions
    model: ModelOptions
    output: OutputOptions


@with_options
def evaluate(
    inputs: Annotated[InputOptions, Without("inputs", "files_from", "null")],
    model: ModelOptions,
    output: Annotated[OutputOptions, Without("top_k", "threshold", "label", "format")],
    folder: Annotated[
        str | None,
        typer.Argument(
            metavar="DIR", help="A folder that holds a folder of pictures for each class.", show_default=False
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option("--labels", metavar="FILE", help="Instead of DIR: a CSV or TSV of paths and labels."),
    ] = None,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write all figures here, nothing rounded.")
    ] = None,
    plots: Annotated[
        str | None,
        typer.Option("--plots", metavar="DIR", help="Write confusion.png, confusion.csv and reliability.png here."),
    ] = None,
) -> None:
    """Measure how good a model is on pictures whose classes are known."""
    notices.set_up(output.quiet, output.verbose)
    model.check()
    tolerated, tally = output.tolerated(), Tally()
    _check_destinations(json_file, plots)
    labelled = _labelled(folder, labels, inputs.walk(), tally.skipped)
    checkpoint = open_checkpoint(model.model, model.revision)
    classes = match((each.label for each in labelled if isinstance(each.found, Source)), checkpoint.labels)
    say_if_demo(checkpoint)
    asked = _Asked(folder or labels or "", inputs, model, output)
    evaluation = _evaluate(asked, checkpoint, labelled, classes, tally)
    _write(evaluation, json_file, plots)
    from beitcli.evaluation.report import tables

    with suppress(ReaderGone), writing():
        show(tables(evaluation), output.colored)
    raise typer.Exit(tally.exit_status(tolerated))


def _check_destinations(json_file: str | None, plots: str | None) -> None:
    """Raises UsageError or OutputError for what could not be written."""
    if json_file == "-":
        raise UsageError("--json -: standard output has the tables", "name a file")
    if json_file is not None:
        check_writable(json_file)
    if plots is None:
        return
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--plots needs matplotlib", "`pip install 'beitcli[plots]'`")
    if os.path.lexists(plots) and not os.path.isdir(plots):
        raise OutputError(f"`{printable(plots)}` is no folder", "name one; it is made where there is none")
    check_writable(os.path.join(plots, "confusion.csv") if os.path.isdir(plots) else plots.rstrip("/"))


def _labelled(folder: str | None, table: str | None, walk: Walk, skipped: Counter[str]) -> list[Labelled]:
    if folder is not None and table is not None:
        raise UsageError("DIR and --labels both name the classes", "leave one of them out")
    if folder is not None:
        labelled = by_folder(folder, walk, skipped)
        empty = classes_without_pictures(folder, labelled)
        if empty:
            log.info("%d class folders hold no picture: %s", len(empty), ", ".join(map(printable, empty[:10])))
        return labelled
    if table is None:
        raise UsageError("nothing to evaluate", "name a folder that holds one for each class, or a table by --labels")
    if walk != Walk():
        raise UsageError(
            "--labels names each picture, and nothing is walked", "leave out --ext, --exclude and their like"
        )
    return by_table(table)


def _evaluate(
    asked: _Asked, checkpoint: Checkpoint, labelled: Sequence[Labelled], classes: Mapping[str, Match], tally: Tally
) -> "Evaluation":
    """Has the model answer, and measures the answers."""
    used: list[ClassificationSettings] = []

    def settings_of(ahead: Ahead) -> "ClassificationSettings":
        used.append(settings_for(asked.inputs, asked.model, asked.output, checkpoint, ahead, padded=True))
        return used[0]

    records = _records(labelled, settings_of, tally, asked.output.quiet)
    from beitcli.evaluation.metrics import Answer, measure
    from beitcli.evaluation.report import Evaluation, Setting, Truth

    answers, failures = [], []
    for each, record in zip(labelled, records, strict=True):
        if isinstance(record, Failure):
            failures.append(record)
        else:
            best = tuple(score.index for score in record.scores)
            answers.append(Answer(record.source, classes[each.label].index, best, record.scores[0].score))
    if not answers:
        log.info("no picture could be read: there are no figures")
    setting = Setting(
        model=checkpoint.name,
        location=checkpoint.repository.location,
        revision=checkpoint.repository.revision,
        labels=len(checkpoint.labels),
        preprocess=asked.model.preprocess,
        image_size=asked.model.image_size,
        fast_decode=asked.inputs.fast_decode,
        device=used[0].runtime.device,
        dtype=used[0].runtime.dtype,
    )
    matched_by = dict(Counter(each.by for each in classes.values()))
    truth = Truth(asked.truth, len({each.index for each in classes.values()}), matched_by)
    return Evaluation(__version__, setting, truth, measure(answers, checkpoint.labels), failures, tally.skipped)


def _records(
    labelled: Sequence[Labelled],
    settings_of: Callable[[Ahead], "ClassificationSettings"],
    tally: Tally,
    quiet: bool,
) -> list[Record]:
    """A record for each picture, in their order, with the summary of the run on stderr."""
    records, timings = [], Timings()
    try:
        with (
            notices.progress(quiet) as progress,
            closing(answers_to((each.found for each in labelled), settings_of, timings)) as answers,
        ):
            for answered in answers:
                records.extend(answered)
                tally.add(answered)
                signals.check()
                progress.update(len(answered))
    except signals.Stopped:
        summarise(tally, timings, quiet)
        raise
    summarise(tally, timings, quiet)
    return records


def _write(evaluation: "Evaluation", json_file: str | None, plots: str | None) -> None:
    from beitcli.evaluation.report import as_json

    if json_file is not None:
        with _stream(json_file) as stream, writing():
            stream.write(json.dumps(as_json(evaluation), indent=1, allow_nan=False).encode() + b"\n")
    if plots is not None:
        from beitcli.evaluation.plots import confusion_plot, confusion_table, reliability_plot

        with writing():
            os.makedirs(plots, exist_ok=True)
        drawn = {"confusion.csv": confusion_table, "confusion.png": confusion_plot, "reliability.png": reliability_plot}
        for name, draw in drawn.items():
            with replaced_file(os.path.join(plots, name), keeps_part=False) as stream, writing():
                draw(evaluation.figures, stream)


def _stream(path: str) -> AbstractContextManager[BinaryIO]:
    return stream_to(path) if is_stream(path) else replaced_file(path, keeps_part=False)
