"""`beit eval`: accuracy of a model on labelled images."""

import importlib.util
import json
import logging
import os
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from beitcli.cli import notices
from beitcli.cli.exit_status import exit_status
from beitcli.cli.options import (
    OutputOptions,
    Without,
    check_no_walk_options,
    examples,
    with_options,
)
from beitcli.errors import OutputError, UsageError
from beitcli.evaluation.ground_truth import match
from beitcli.inputs.labelled import Labelled, by_folder, by_table, classes_without_images
from beitcli.inputs.sources import Walk
from beitcli.jobs.engine import warn_if_demo
from beitcli.jobs.evaluate import Labelling, check_classes
from beitcli.jobs.evaluate import evaluate as run
from beitcli.jobs.observer import Report
from beitcli.jobs.requests import Compute, Inputs, Limits, ModelChoice, Request, Resume
from beitcli.model.checkpoint import open_checkpoint
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
from beitcli.records import Skipped, Source, printable
from beitcli.tables import show

if TYPE_CHECKING:
    from beitcli.evaluation.report import Evaluation

log = logging.getLogger(__name__)

EXAMPLES = examples(
    "beit eval ./val -m base-224 --preprocess paper",
    "beit eval ./val -m demo --json eval.json --plots .",
    "beit eval --labels labels.csv -m ./my-model",
)


_PLOTS = ("confusion.csv", "confusion.png", "reliability.png")


@with_options
def evaluate(
    inputs: Annotated[Inputs, Without("inputs", "files_from", "null")],
    limits: Limits,
    model: ModelChoice,
    compute: Compute,
    output: Annotated[OutputOptions, Without("format")],
    resume: Annotated[Resume, Without("out", "shard", "dry_run")],
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
    out: Annotated[
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
    resume = replace(resume, out=out or "-")
    compute.check()
    resume.check()
    output.check()
    report = Report()
    _check_destinations(out, plots)
    if folder is not None and plots is not None and is_in(plots, folder):
        raise UsageError(f"`{printable(plots)}` is in the folder of the images", "choose a --plots beside it")
    labelled = _labelled(folder, labels, inputs.walk(), report.tally.skipped)
    plot_files = [os.path.join(plots, name) for name in _PLOTS] if plots is not None else []
    images = (each.found.location for each in labelled if isinstance(each.found, Source))
    check_not_overwritten([*filter(None, [out]), *plot_files], chain(filter(None, [labels]), images))
    checkpoint = open_checkpoint(model.model, model.revision)
    check_classes(checkpoint)
    classes = match((each.label for each in labelled if isinstance(each.found, Source)), checkpoint.labels)
    warn_if_demo(checkpoint)
    resume = replace(resume, no_ledger=resume.no_ledger or resume.streams)
    request = Request(inputs, limits, model, compute, resume=resume, target=os.path.realpath(resume.out))
    truth = Labelling(folder or labels or "", labelled, classes)
    with nullcontext() if resume.streams else exclusive(resume.out, resume.wait):
        with notices.observer(output.quiet) as observer:
            evaluation = run(request, checkpoint, truth, report, observer)
        _write(evaluation, out, plots)
    from beitcli.evaluation.report import tables

    with suppress(ReaderClosed), writing():
        show(tables(evaluation), output.colored)
    raise typer.Exit(exit_status(report, output))


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
