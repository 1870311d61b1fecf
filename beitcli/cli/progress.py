"""The observer of a run, for a person at a terminal or a log."""

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager

from beitcli.cli.bars import Bars, describing
from beitcli.cli.lines import Lines
from beitcli.jobs.observer import Observer, Silent


@contextmanager
def observer(quiet: bool, records_on_stdout: bool = False) -> Iterator[Observer]:
    """The observer of a run: bars on a terminal that does not get the records too, nothing if `quiet`, else lines."""
    shares_terminal = records_on_stdout and sys.stdout is not None and sys.stdout.isatty()
    if quiet:
        yield Silent()
    elif sys.stderr.isatty() and not shares_terminal:
        with closing(Bars()) as bars, describing(bars):
            yield bars
    else:
        yield Lines()
