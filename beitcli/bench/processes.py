"""Whole processes, as a user starts them: from the command line to the last prediction."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from tempfile import TemporaryDirectory

from beitcli import signals
from beitcli.bench.clock import Effort, Rate, Timing, rate_of, timing_of
from beitcli.errors import BeitError
from beitcli.model.cpu.cores import usable_cores
from beitcli.records import printable

BEIT = (sys.executable, "-m", "beitcli")

_RATE = re.compile(r"^([\d.]+) images/s", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class StartUp:
    """Start-up times: printing the version, importing torch, and classifying one image."""

    version: Timing
    import_torch: Timing
    one_photo: Timing


@dataclass(frozen=True, slots=True)
class Run:
    """One whole process: its seconds, and the images per second that it reports, without start-up."""

    seconds: float
    reported: float


@dataclass(frozen=True, slots=True)
class WholeRuns:
    """Repeated runs of a process: images per second with start-up, and without it as each run reports."""

    images: Rate
    reported: tuple[float, ...]
    reported_median: float


def start_up(model: str, image: str, device: str, effort: Effort) -> StartUp:
    """Measure start-up times with a warm disk cache."""
    classify = (*BEIT, "classify", image, "-m", model, "--device", device, "-q")
    commands = ((*BEIT, "--version"), (sys.executable, "-c", "import torch"), classify)
    return StartUp(*(_start_up(command, effort) for command in commands))


def _start_up(command: Sequence[str], effort: Effort) -> Timing:
    finished(command)
    return timing_of([finished(command)[0] for _ in range(effort.rounds)])


def batch_command(model: str, listed: str, device: str, options: Sequence[str] = ()) -> tuple[str, ...]:
    """`beit batch` on a list of images, without deduplication; the output's path must be appended."""
    inputs = ("--files-from", listed, "--null", "--no-dedupe")
    return (*BEIT, "batch", *inputs, "-m", model, "--device", device, *options, "--out")


def classified(command: Sequence[str]) -> Run:
    """Run a command that takes the path of its output as its last argument, and prints a rate to stderr."""
    with TemporaryDirectory(prefix="beit-bench-") as folder:
        seconds, printed = finished((*command, os.path.join(folder, "predictions.csv")))
    rates = _RATE.findall(printed)
    if not rates:
        raise BeitError(f"`{_name(command)}` reports no images/s", printable(_last_line(printed)))
    return Run(seconds, float(rates[-1]))


def whole_runs(count: int, runs: Iterable[Run]) -> WholeRuns:
    """Summarise several runs of the same command on `count` images."""
    each = list(runs)
    reported = tuple(run.reported for run in each)
    return WholeRuns(rate_of(count, [run.seconds for run in each]), reported, median(reported))


def finished(command: Sequence[str]) -> tuple[float, str]:
    """Run the command; return its seconds and its stderr. A request to stop ends it, too.

    Raises BeitError if it fails.
    """
    start = time.perf_counter()
    with signals.held():  # else a new process might not be ended
        process = subprocess.Popen(
            command, env=_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
    with process:
        try:
            signals.check()
            output = process.communicate()[1]
        except BaseException:
            process.kill()
            raise
    seconds = time.perf_counter() - start
    printed = output.decode(errors="replace")
    if process.returncode:
        message = f"`{_name(command)}` ended with status {process.returncode}"
        raise BeitError(message, f"its last line: {printable(_last_line(printed))}")
    return seconds, printed


_BEIT_DEFAULTS = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "3000", "OMP_NUM_THREADS": str(usable_cores())}
"""Thread settings that `beit` makes for itself: rivals run with their libraries' defaults."""


def _environment() -> dict[str, str]:
    """The user's environment without `beit`'s options and thread settings, and offline."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BEIT_")}
    return dict(kept.items() - _BEIT_DEFAULTS.items()) | {"HF_HUB_OFFLINE": "1"}


def _name(command: Sequence[str]) -> str:
    """Short name of the command: the module or code that Python runs, and its first argument."""
    return " ".join(command[2:4])


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["nothing"])[-1]
