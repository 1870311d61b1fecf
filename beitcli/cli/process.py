"""Start and end of a command: what it does to the whole process, which the library leaves as it is."""

import atexit
import gc
import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn, TextIO

from beitcli import signals
from beitcli.errors import OutputError
from beitcli.model.cpu import heap
from beitcli.model.cpu.cores import usable_cores
from beitcli.outputs.destination import WaitingFile

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_NOWHERE = "/proc/self/fdinfo"
"""A folder that is there, and in which nobody makes a file."""

_COLLECTED_AFTER = 100_000
"""New objects after which Python looks for cycles: its own 700 (2,000 since 3.13) take 0.2 s of a start with torch."""


def own_process() -> None:
    """Set the signals, the heap, the garbage collector, the threads and the environment of the process.

    Where its folder is deleted, it gets another.
    """
    _leave_deleted_folder()
    gc.set_threshold(_COLLECTED_AFTER)
    # Waiting threads that spin starve each other when another process needs a core: measured 60 times slower.
    # Threads that never spin wake up late: spinning for some microseconds saves a fifth on single images.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    heap.tune()
    signals.listen()


def _leave_deleted_folder() -> None:
    """Let the process have a folder: MKL ends it where there is none."""
    try:
        os.getcwd()
    except FileNotFoundError:
        with suppress(OSError):  # no /proc here
            os.chdir(_NOWHERE)


def has_left_its_folder() -> bool:
    """True if the working folder was deleted before the start, so that only absolute paths lead anywhere."""
    with suppress(OSError):
        return os.path.samefile(os.getcwd(), _NOWHERE)
    return False


def open_standard_streams() -> None:
    """Open closed file descriptors 0 to 2 on the null device: the next opened file would take their number.

    Text to a descriptor that does not block waits for room. A full standard output is an OutputError.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # until exit; `print` would use stdout instead
    sys.stderr = _text(sys.stderr, WaitingFile(2, "w", closefd=False), by_lines=True)
    if sys.stdout is not None:
        sys.stdout = _text(sys.stdout, _StandardOutput(1, "w", closefd=False), by_lines=sys.stdout.isatty())


def end_process(status: int) -> NoReturn:
    """End the process with this exit status, without the interpreter taking all modules apart.

    With torch imported that takes 0.1 s of a processor, with transformers 0.3 s.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with suppress(OSError, OutputError):  # what could be said of it was said when the run ended
                stream.flush()
    os._exit(status)


def _text(stream: TextIO, raw: io.RawIOBase, by_lines: bool) -> TextIO:
    """The stream's text over another file."""
    return io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding, stream.errors, line_buffering=by_lines)


class _StandardOutput(WaitingFile):
    """Standard output. Raises OutputError where it cannot be written, BrokenPipeError where nobody reads it."""

    def write(self, data: "ReadableBuffer") -> int:
        try:
            return super().write(data)
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)  # for the rest of the buffer, or the interpreter reports an error at exit
            if isinstance(error, BrokenPipeError):
                raise
            raise OutputError(f"cannot write to standard output: {error.strerror}") from error
