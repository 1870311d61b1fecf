"""Start of a command: what it changes for the whole process, which the library leaves as it is."""

import os
import sys

from beitcli import signals
from beitcli.model.cpu import heap
from beitcli.model.cpu.cores import usable_cores


def own_process() -> None:
    """Set the signals, the heap, the threads and the environment of the process."""
    # Waiting threads that spin starve each other when another process needs a core: measured 60 times slower.
    # Threads that never spin wake up late: spinning for some microseconds saves a fifth on single images.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    heap.tune()
    signals.listen()


def open_standard_streams() -> None:
    """Open closed file descriptors 0 to 2 on the null device: the next opened file would take their number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # until exit; `print` would use stdout instead
