"""The same pictures through other programs, in turns with `beit batch`, so that noise on the machine hits both."""

import logging
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING

from beitcli.bench.clock import Effort
from beitcli.bench.processes import WholeRuns, batch_command, classified, finished, whole_runs
from beitcli.errors import UsageError

if TYPE_CHECKING:
    from beitcli.bench.machine import Machine

log = logging.getLogger(__name__)

RIVALS = ("transformers", "openvino")
"""Their names, which are also those of their packages."""

_TORCH_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_BATCH = 16
_MOST_WORKERS = 8


@dataclass(frozen=True, slots=True)
class Contest:
    """What all are given: a checkpoint's folder, a NUL-separated list of so many pictures, and the machine."""

    model: str
    listed: str
    count: int
    machine: "Machine"


@dataclass(frozen=True, slots=True)
class Duel:
    """`beit batch` and a rival in turns. Ratios are ours over theirs, of images a second: above 1, ours is faster."""

    options: str
    rival: str
    version: str
    setting: str
    ours: WholeRuns
    theirs: WholeRuns
    ratio: float
    ratio_reported: float


@dataclass(frozen=True, slots=True)
class _Program:
    """A way of running a rival; what is `tuned` is met by a `beit batch` that is, too."""

    setting: str
    command: tuple[str, ...]
    tuned: bool = True


def check_rivals(names: Iterable[str]) -> None:
    """Raises UsageError for a rival that is unknown or not installed."""
    for name in names:
        if name not in RIVALS:
            raise UsageError(f"--vs {name}: no such rival", f"one of {', '.join(RIVALS)}")
        if find_spec(name) is None:
            raise UsageError(f"--vs {name}: it is not installed", f"pip install {name}")


def check_device(names: Iterable[str], device: str) -> None:
    """Raises UsageError for a rival that does not run on that device."""
    if "openvino" in names and device != "cpu":
        raise UsageError(f"--vs openvino: it is measured on the CPU, and beit runs on {device}", "add --device cpu")


def duels(names: Iterable[str], contest: Contest, folder: str, effort: Effort) -> list[Duel]:
    """One duel for each way of running each rival; what a rival has to make once goes into `folder`."""
    fought = []
    for name in dict.fromkeys(names):
        for program in _openvino(contest, folder) if name == "openvino" else _transformers(contest):
            log.info("measuring beit batch and %s (%s) in turns", name, program.setting)
            fought.append(_duel(name, program, contest, effort))
    return fought


def _duel(rival: str, program: _Program, contest: Contest, effort: Effort) -> Duel:
    options = ("--compile",) if program.tuned and contest.machine.compiles else ()
    own = batch_command(contest.model, contest.listed, contest.machine.device, options)
    for command in (own, program.command):
        classified(command)  # fills caches
    turns = [(classified(own), classified(program.command)) for _ in range(effort.rounds)]
    ours, theirs = (whole_runs(contest.count, runs) for runs in zip(*turns, strict=True))
    ratio = ours.images.per_second / theirs.images.per_second
    without_start_up = ours.reported_median / theirs.reported_median
    return Duel(" ".join(options), rival, version(rival), program.setting, ours, theirs, ratio, without_start_up)


def _module(name: str) -> tuple[str, ...]:
    return sys.executable, "-m", f"beitcli.bench.rivals.{name}"


def _transformers(contest: Contest) -> Iterator[_Program]:
    """Its pipeline as the documentation shows it, and as well as its options allow on this machine.

    Worker processes for decoding are among these only where they have cores to themselves: on two they made it slower.
    """
    machine = contest.machine
    command = (*_module("transformers_pipeline"), "--device", machine.device)
    files = (contest.model, contest.listed)
    yield _Program("defaults: fp32, batch 1", (*command, *files), tuned=False)
    workers = min(machine.cores, _MOST_WORKERS) if machine.device != "cpu" or machine.cores >= _MOST_WORKERS else 0
    dtype, batch = _TORCH_DTYPES[machine.best_dtype], str(_BATCH)
    tuned = ("--dtype", dtype, "--batch-size", batch, "--workers", str(workers))
    setting = f"tuned: {machine.best_dtype}, batch {batch}, {workers} workers"
    yield _Program(setting, (*command, *tuned, *files))


def _openvino(contest: Contest, folder: str) -> Iterator[_Program]:
    """Its throughput mode on a model that is exported once, before anything is timed."""
    machine = contest.machine
    dtype = "bf16" if machine.fast_bf16 else "fp32"
    threads = max(2, min(machine.cores, _MOST_WORKERS))
    exported = os.path.join(folder, "openvino.xml")
    log.info("exporting the model to OpenVINO")
    finished((*_module("openvino_export"), contest.model, exported, "--batch-size", str(_BATCH)))
    setting = f"{dtype}, batch {_BATCH}, throughput mode, {threads} threads decoding"
    options = ("--dtype", dtype, "--threads", str(threads))
    yield _Program(setting, (*_module("openvino_queue"), *options, contest.model, exported, contest.listed))
