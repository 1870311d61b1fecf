"""The command line's start and end: the single place that turns errors into a message and an exit status."""

import os
import sys
import warnings
from contextlib import suppress

import typer

from beitcli import signals
from beitcli.cli import notices
from beitcli.cli.commands import app_with, needed
from beitcli.cli.process import has_left_its_folder, open_standard_streams, own_process
from beitcli.errors import BeitError, ExitStatus
from beitcli.records import printable


def main() -> int:
    """Run the command line and return its exit status; after a signal, die by that signal.

    Errors print one line and an optional hint; with BEIT_DEBUG set they keep their traceback.
    """
    open_standard_streams()
    debugging = bool(os.environ.get("BEIT_DEBUG"))
    if not debugging:
        warnings.simplefilter("ignore")  # aimed at developers
    own_process()
    try:
        with signals.outlasting_errors():
            app = app_with(needed(sys.argv[1:]))
            status = typer.main.get_command(app).main(prog_name="beit", standalone_mode=False)
        _flush()
        return int(status or ExitStatus.OK)
    except signals.Stopped as stopped:
        signals.die_by(stopped.signal_number)
    except BeitError as error:
        if debugging:
            raise
        if has_left_its_folder():
            return _report_without_folder(error)
        return _report(str(error), error.hint, error.exit_status)
    except typer.TyperException as error:
        message = error.format_message().rstrip(".").replace("Value error, ", "")  # prefix added by pydantic
        return _report(message, "`--help` lists the options", error.exit_code)
    except SystemExit as ended:  # raised by rich and typer when a pipe is closed, and by completion with its own status
        return ExitStatus.OK if ended.code == 1 else int(ended.code or 0)


def _flush() -> None:
    """Flush standard output. Raises OutputError on failure, unless the reader closed the pipe."""
    if sys.stdout is not None:
        with suppress(BrokenPipeError):
            sys.stdout.flush()


def _report_without_folder(error: BeitError) -> int:
    """Report an error of a process whose working folder is deleted: most likely of a relative path, named as typed."""
    message = str(error).replace(f"{os.getcwd()}/", "")
    is_of_usage = error.exit_status == ExitStatus.USAGE  # which it was not while there was a folder
    status = ExitStatus.FAILED if is_of_usage else error.exit_status
    return _report(message, error.hint or "the working folder is deleted: name absolute paths", status)


def _report(message: str, hint: str | None, exit_status: int) -> int:
    notices.print_line(f"beit: error: {printable(message)}")
    if hint:
        notices.print_line(f"hint: {printable(hint)}")
    return int(exit_status)
