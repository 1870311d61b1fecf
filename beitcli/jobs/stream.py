"""A run straight through: records into a stream as they come, keeping nothing."""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from itertools import chain
from typing import BinaryIO

from beitcli import signals
from beitcli.jobs.observer import Observer, Report
from beitcli.outputs.destination import writing
from beitcli.outputs.selection import Selection
from beitcli.outputs.writers import Layout, writer
from beitcli.records import Record


@dataclass(frozen=True, slots=True)
class Destination:
    """Output stream, the layout of its records and those to write; with `padded` batches, none depends on neighbours.

    `replaces` is the file that the stream replaces, if any.
    """

    open: Callable[[], AbstractContextManager[BinaryIO]]
    padded: bool
    replaces: str = ""


def write_stream(
    batches: Generator[list[Record], None, None],
    selection: Selection,
    layout: Layout,
    destination: Destination,
    report: Report,
    observer: Observer,
) -> None:
    """Write the selected records as they come.

    The destination is opened with the first batch: an earlier failure leaves no trace there. Raises ReaderClosed where
    the reader of a pipe has seen enough.
    """
    try:
        with closing(batches):
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
