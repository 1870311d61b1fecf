"""Notices and errors on stderr."""

import logging
import os
import sys
from datetime import datetime

from beitcli.cli.flags import Flag, in_flags
from beitcli.cli.process import has_left_its_folder
from beitcli.records import printable

log = logging.getLogger("beitcli")


def flag_of(parameter: str) -> Flag | None:  # noqa: ARG001
    """The flag that lines on stderr name in place of a parameter of the library; the command line sets its own."""
    return None


class _LineHandler(logging.Handler):
    """Log handler: print `beit: message`, above the progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        print_line(f"beit: {printable(record.getMessage())}")


def print_line(line: str, timed: bool = True) -> None:
    """Print one line to stderr, its parameters as flags, above the progress bar; if stderr is closed, drop it.

    A `timed` one begins with the time if messages are verbose.
    """
    line = in_flags(line, flag_of)
    if timed and log.isEnabledFor(logging.DEBUG):
        line = f"{datetime.now().astimezone().isoformat(' ', 'seconds')} {line}"
    tqdm = sys.modules.get("tqdm")
    try:
        if tqdm:
            tqdm.tqdm.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr)  # noqa: T201
        sys.stderr.flush()
    except OSError:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # for the rest of the run


def set_up(quiet: bool, verbose: bool) -> None:
    """Print log messages on stderr: all if `verbose`, errors only if `quiet`, else from INFO up."""
    log.handlers = [_LineHandler()]
    log.propagate = False
    log.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if quiet or not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if has_left_its_folder():
        log.info("the working folder is deleted: only absolute paths can be read and written")
