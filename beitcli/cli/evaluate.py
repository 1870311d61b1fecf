"""`beit eval`: accuracy of a model on labelled images."""

import importlib.util
import json
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from beitcli import __version__
from beitcli.cli import notices
from beitcli.cli.options import (
    BatchOptions,
    InputOptions,
    ModelOptions,
    OutputOptions,
    Without,
    check_no_walk_options,
    examples,
    with_options,
)
from beitcli.cli.resume import Job, updated_ledger
from beitcli.cli.run import warn_if_demo
from beitcli.cli.tasks import classification_task
from beitcli.errors import OutputError, UsageError
from beitcli.evaluation.ground_truth import Match, match
from beitcli.inputs.labelled import Labelled, by_folder, by_table, classes_without_images
from beitcli.inputs.sources import Walk
from beitcli.model.checkpoint import Checkpoint, open_checkpoint
from beitcli.outputs.destination import (
    ReaderClosed,
    check_not_overwritten,
    check_writable,
    is_in,
    is_stream,
    replaced_file,
    stream_to,
    writing,
)
from beitcli.outputs.lock import exclusive
from beitcli.outputs.summary import Tally
from beitcli.records import Failure, Skipped, Source, printable
from beitcli.tables import show

if TYPE_CHECKING:
    from beitcli.evaluation.report import Evaluation, Setting

log = logging.getLogger(__name__)

EXAMPLES = examples(
    "beit eval ./val -m base-224 --preprocess paper",
    "beit eval ./val -m demo --json eval.json --plots .",
    "beit eval --labels labels.csv -m ./my-model",
)


_PLOTS = ("confusion.csv", "confusion.png", "reliability.png")


@dataclass(frozen=True, slots=True)
class _Request:
    """The evaluation that the options describe."""

    labels_source: str
    job: Job


@with_options
def evaluate(
    inputs: Annotated[InputOptions, Without("inputs", "files_from", "null")],
    model: ModelOptions,
    output: Annotated[OutputOptions, Without("top_k", "threshold", "label", "format")],
    batch: Annotated[BatchOptions, Without("out", "shard", "dry_run")],
    folder: Annotated[
        str | None,
        typer.Argument(
            metavar="DIR", help="A folder that holds a folder of images for each class.", show_default=False
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option("--labels", metavar="FILE", help="Instead of DIR: a CSV or TSV of paths and labels."),
    ] = None,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write all figures here, unrounded.")
    ] = None,
    plots: Annotated[
        str | None,
        typer.Option("--plots", metavar="DIR", help="Write confusion.png, confusion.csv and reliability.png here."),
    ] = None,
) -> None:
    """Measure the accuracy of a model on labelled images.

    With --json FILE, run it again to process only missing or changed images and failures that may pass.
    """
    notices.set_up(output.quiet, output.verbose)
    model.check()
    batch = replace(batch, out=json_file or "-")
    batch.check("--json FILE")
    tolerated, tally = output.tolerated(), Tally()
    _check_destinations(json_file, plots)
    if folder is not None and plots is not None and is_in(plots, folder):
        raise UsageError(f"`{printable(plots)}` is in the folder of the images", "choose a --plots beside it")
    labelled = _labelled(folder, labels, inputs.walk(), tally.skipped)
    plot_files = [os.path.join(plots, name) for name in _PLOTS] if plots is not None else []
    images = (each.found.location for each in labelled if isinstance(each.found, Source))
    check_not_overwritten([*filter(None, [json_file]), *plot_files], chain(filter(None, [labels]), images))
    checkpoint = open_checkpoint(model.model, model.revision)
    _check_classes(checkpoint)
    classes = match((each.label for each in labelled if isinstance(each.found, Source)), checkpoint.labels)
    warn_if_demo(checkpoint)
    batch = replace(batch, no_ledger=batch.no_ledger or batch.streams)
    request = _Request(folder or labels or "", Job(inputs, model, output, batch, os.path.realpath(batch.out)))
    with nullcontext() if batch.streams else exclusive(batch.out, batch.wait):
        evaluation = _evaluate(request, checkpoint, labelled, classes, tally)
        _write(evaluation, json_file, plots)
    from beitcli.evaluation.report import tables

    with suppress(ReaderClosed), writing():
        show(tables(evaluation), output.colored)
    raise typer.Exit(tally.exit_status(tolerated))


def _check_classes(checkpoint: Checkpoint) -> None:
    """Raises UsageError for a model that does not choose one of several labels per image."""
    if checkpoint.activation == "softmax":
        return
    kind = (
        "is a regression: its outputs are quantities, not classes"
        if checkpoint.activation == "none"
        else "gives each image several labels at once, and the ground truth has one"
        if len(checkpoint.labels) > 1
        else "has one label, which would always be correct"
    )
    raise UsageError(
        f"`{checkpoint.name}` {kind}", "`beit batch` writes its scores, to compare with your own ground truth"
    )


def _check_destinations(json_file: str | None, plots: str | None) -> None:
    """Raises UsageError or OutputError for outputs that cannot be written."""
    if json_file == "-":
        raise UsageError("--json -: standard output has the tables", "name a file")
    if json_file is not None:
        check_writable(json_file)
    if plots is None:
        return
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--plots needs matplotlib", "`pip install 'beitcli[plots]'`")
    if os.path.lexists(plots) and not os.path.isdir(plots):
        raise OutputError(f"`{printable(plots)}` is no folder", "name one; it is created if missing")
    check_writable(os.path.join(plots, "confusion.csv") if os.path.isdir(plots) else plots.rstrip("/"))


def _labelled(folder: str | None, table: str | None, walk: Walk, skipped: Skipped) -> list[Labelled]:
    if folder is not None and table is not None:
        raise UsageError("DIR and --labels both name the classes", "leave one of them out")
    if folder is not None:
        labelled = by_folder(folder, walk, skipped)
        empty = classes_without_images(folder, labelled, walk)
        if empty:
            log.info("%d class folders hold no image: %s", len(empty), ", ".join(map(printable, empty[:10])))
        return labelled
    if table is None:
        raise UsageError("nothing to evaluate", "name a folder that holds one for each class, or a table by --labels")
    check_no_walk_options(walk)
    return by_table(table)


def _evaluate(
    request: _Request, checkpoint: Checkpoint, labelled: Sequence[Labelled], classes: Mapping[str, Match], tally: Tally
) -> "Evaluation":
    """Predict the images that the ledger lacks, and measure all predictions."""
    job, predictions, failures = request.job, [], []
    found = (each.found for each in labelled)
    with updated_ledger(job, found, classification_task("eval", checkpoint, job.output.top_k), tally) as ledger:
        from beitcli.evaluation.metrics import LabelledPrediction, measure

        dtype = " and ".join(ledger.dtypes())
        for each, record in zip(labelled, chain.from_iterable(ledger.records()), strict=True):
            if isinstance(record, Failure):
                failures.append(record)
            else:
                best = tuple(score.index for score in record.scores)
                predictions.append(
                    LabelledPrediction(record.source, classes[each.label].index, best, record.scores[0].score)
                )
    if not predictions:
        log.info("no image could be read: there are no figures")
    from beitcli.evaluation.report import Evaluation, GroundTruth

    matched_by = dict(Counter(each.by for each in classes.values()))
    ground_truth = GroundTruth(request.labels_source, len({each.index for each in classes.values()}), matched_by)
    figures = measure(predictions, checkpoint.labels)
    return Evaluation(__version__, _setting(job, checkpoint, dtype), ground_truth, figures, failures, tally.skipped)


def _setting(job: Job, checkpoint: Checkpoint, dtype: str) -> "Setting":
    from beitcli.evaluation.report import Setting
    from beitcli.model.runtime import choose_device

    return Setting(
        model=checkpoint.name,
        location=checkpoint.repository.location,
        revision=checkpoint.repository.revision,
        labels=len(checkpoint.labels),
        preprocess=job.model.preprocess,
        image_size=job.model.image_size,
        fast_decode=job.inputs.fast_decode,
        device=choose_device(job.model.device),
        dtype=dtype or job.model.precision,
    )


def _write(evaluation: "Evaluation", json_file: str | None, plots: str | None) -> None:
    from beitcli.evaluation.report import as_json

    if json_file is not None:
        with _stream(json_file) as stream, writing():
            stream.write(json.dumps(as_json(evaluation), indent=1, allow_nan=False).encode() + b"\n")
    if plots is not None:
        from beitcli.evaluation.plots import confusion_plot, confusion_table, reliability_plot

        with writing():
            os.makedirs(plots, exist_ok=True)
        for name, draw in zip(_PLOTS, (confusion_table, confusion_plot, reliability_plot), strict=True):
            with replaced_file(os.path.join(plots, name), keeps_part=False) as stream, writing():
                draw(evaluation.figures, stream)


def _stream(path: str) -> AbstractContextManager[BinaryIO]:
    return stream_to(path) if is_stream(path) else replaced_file(path, keeps_part=False)
