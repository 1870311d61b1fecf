"""A run straight through: from the inputs to a stream of records, keeping nothing."""

from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import BinaryIO

from beitcli import signals
from beitcli.jobs.discovery import find_part
from beitcli.jobs.engine import predict_records, settings_for
from beitcli.jobs.observer import Observer, Report
from beitcli.jobs.requests import Request
from beitcli.jobs.tasks import Task
from beitcli.outputs.destination import writing
from beitcli.outputs.selection import Selection
from beitcli.outputs.writers import Layout, writer
from beitcli.records import Prediction


@dataclass(frozen=True, slots=True)
class Destination:
    """Output stream, the layout of its records and those to write; with `padded` batches, none depends on neighbours.

    `replaces` is the file that the stream replaces, if any.
    """

    open: Callable[[], AbstractContextManager[BinaryIO]]
    padded: bool
    replaces: str = ""


def stream(
    request: Request,
    load: Callable[[], tuple[Task[Prediction], Selection, Layout]],
    destination: Destination,
    observer: Observer,
) -> Report:
    """Classify the requested part of the inputs and write the records as they come.

    The destination is opened with the first batch: an earlier failure leaves no trace there. With nothing to classify,
    nothing heavy is imported. Raises ReaderClosed where the reader of a pipe has seen enough.
    """
    report = Report()
    found = find_part(request, report.tally.skipped, destination.replaces)
    task, selection, layout = load()
    settings_of = partial(settings_for, request, task, padded=destination.padded)
    try:
        with closing(predict_records(found, task, settings_of, report.timings)) as batches:
            first = next(batches, [])
            with destination.open() as opened, writer(opened, layout) as rows:
                for records in chain([first], batches):
                    with signals.held():
                        with writing():
                            rows.write(selection.of(records))
                        report.tally.add(records)
                    signals.check()
                    observer.progress(len(records))
    except signals.Stopped:
        observer.summary(report)
        raise
    observer.summary(report)
    return report
