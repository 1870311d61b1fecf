"""Classification of the inputs: straight through, or resumable into a file."""

import math
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial

from beitcli.errors import UsageError
from beitcli.jobs.discovery import begin_stage, find_again, find_part
from beitcli.jobs.engine import (
    RunContext,
    helpful_stages,
    open_classifier,
    plan_of,
    predict_records,
    warn_if_demo,
)
from beitcli.jobs.observer import Observer, Report, Silent
from beitcli.jobs.recording import Unstored, begun, model_digest, recorded, remove_summary
from beitcli.jobs.requests import Labels, ModelChoice, Request
from beitcli.jobs.resumable import Files, preview, updated_ledger, write_files
from beitcli.jobs.stream import Destination, write_stream
from beitcli.jobs.tasks import Task, classification_task, resumable_classification_task
from beitcli.ledger.database import open_database
from beitcli.model.checkpoint import Checkpoint
from beitcli.outputs.destination import replaced_file, writing
from beitcli.outputs.lock import exclusive
from beitcli.outputs.provenance import Provenance
from beitcli.outputs.selection import Selection, indices_of
from beitcli.outputs.writers import Layout, writer
from beitcli.records import Prediction, Record, Skipped

LayoutFor = Callable[[int], Layout]
"""The layout of the records, from the number of labels of an image."""


def classify(request: Request, layout_for: LayoutFor, destination: Destination, observer: Observer) -> Report:
    """Records of the inputs, written as they come. With nothing to classify, nothing heavy is imported.

    Raises ReaderClosed where the reader of a pipe has seen enough.
    """
    report = Report()
    remove_summary(request)
    begin_stage("classifying", request, observer)
    task, selection, batches = _predictions(request, report, observer, destination.padded, destination.replaces)
    layout = _layout(layout_for, request.labels, task.checkpoint)
    is_named = layout.format == "parquet" or request.resume.summary is not None
    run = begun(request, task, _digest(task.checkpoint) if is_named else "")
    layout = replace(layout, provenance=Provenance(run.model, run.digest, (run.version,)))
    with recorded(run, request, report, Unstored()):
        write_stream(batches, selection, layout, destination, report, observer)
    return report


def _digest(checkpoint: Checkpoint) -> str:
    """The digest of a model, for which all its weights are read."""
    with open_database("") as database:
        return model_digest(checkpoint, database)


def predictions(request: Request) -> Generator[list[Record], None, None]:
    """Records of the inputs, in lists, for a caller that does with them what it wants."""
    task, selection, batches = _predictions(request, Report(), Silent(), padded=False)
    labels = len(task.checkpoint.labels)
    columns = min(request.labels.top_k or labels, labels)
    with closing(batches):
        for records in batches:
            yield [replace(record, columns=columns) for record in selection.of(records)]


def _predictions(
    request: Request, report: Report, observer: Observer, padded: bool, replaces: str = ""
) -> tuple[Task[Prediction], Selection, Generator[list[Record], None, None]]:
    """The task, the selection of records to give, and all records of the requested inputs."""
    found = find_part(request, report.tally.skipped, replaces)
    checkpoint, selection = choose(request.model, request.labels)
    task = classification_task("batch", checkpoint, request.labels.top_k)
    report.tally.helpful = helpful_stages(request, task)
    plan = plan_of(request, task, padded=padded)
    return task, selection, predict_records(found, plan, RunContext(report.timings, on_workers=observer.workers))


def classify_into_file(request: Request, layout_for: LayoutFor, observer: Observer) -> Report:
    """Replace the file `request.target` by the records of the inputs: over its ledger, or without one from scratch.

    Raises BusyError where another run has the file, unless the request is to wait for it; otherwise as
    `classify_again`.
    """
    with exclusive(request.resume.out, request.resume.wait):
        if not request.resume.no_ledger:
            return classify_again(request, layout_for, observer)
        opened = partial(replaced_file, request.target, keeps_part=True)
        return classify(request, layout_for, Destination(opened, padded=True, replaces=request.resume.out), observer)


def classify_again(request: Request, layout_for: LayoutFor, observer: Observer) -> Report:
    """Process missing or changed images and failures that may pass, then replace `request.target` by all records.

    An up-to-date file is not touched. Raises OutputError and leaves the file unchanged if the ledger or the file cannot
    be written, or a folder has lost all its images.
    """
    report = Report()
    remove_summary(request)
    begin_stage("classifying", request, observer)
    found = find_again(request, report.tally.skipped)
    checkpoint, selection = choose(request.model, request.labels)
    layout = _layout(layout_for, request.labels, checkpoint)

    def write(_: int, records: Iterator[list[Record]], provenance: Provenance) -> None:
        named = replace(layout, provenance=provenance)
        with replaced_file(request.target, keeps_part=False) as opened, writer(opened, named) as rows:
            for part in records:
                with writing():
                    rows.write(selection.of(part))

    task = resumable_classification_task("batch", checkpoint, request.labels.top_k)
    files = Files((request.target,), f"{layout} {selection}", write)
    with updated_ledger(request, found, task, report, observer) as ledger:
        write_files(request, files, ledger, observer)
    return report


def preview_classification(request: Request) -> dict[str, int]:
    """Number of images in each state; changes nothing."""
    found = find_again(request, Skipped())
    checkpoint, _ = choose(request.model, request.labels)
    return preview(request, found, resumable_classification_task("batch", checkpoint, request.labels.top_k))


def choose(model: ModelChoice, labels: Labels) -> tuple[Checkpoint, Selection]:
    """The checkpoint, and the selection of its predictions to write."""
    checkpoint = open_classifier(model)
    selection = Selection(
        _lowest_score(labels.threshold, checkpoint), indices_of(labels.label or (), checkpoint.labels)
    )
    warn_if_demo(checkpoint)
    return checkpoint, selection


def _layout(layout_for: LayoutFor, labels: Labels, checkpoint: Checkpoint) -> Layout:
    return layout_for(min(labels.top_k, len(checkpoint.labels)))


def _lowest_score(threshold: float | None, checkpoint: Checkpoint) -> float:
    """Lowest score to write. Raises UsageError for a threshold outside the checkpoint's range of scores."""
    least, most = (-math.inf, math.inf) if checkpoint.activation == "none" else (0.0, 1.0)
    if threshold is None:
        return least
    if not least <= threshold <= most:
        kind = "are raw numbers" if checkpoint.activation == "none" else "are from 0 to 1"
        raise UsageError(f"`threshold={threshold:g}`: the scores of `{checkpoint.name}` {kind}")
    return threshold
