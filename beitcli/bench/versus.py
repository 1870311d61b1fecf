"""Comparison with other programs on the same images, alternating with `beit batch` so that noise affects both."""

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
"""Names of the other programs, which are also those of their packages."""

_TORCH_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_BATCH = 16
_MAX_WORKERS = 8


@dataclass(frozen=True, slots=True)
class Workload:
    """Common input of all programs: a checkpoint's folder, a NUL-separated list of `count` images, and the machine."""

    model: str
    listed: str
    count: int
    machine: "Machine"


@dataclass(frozen=True, slots=True)
class Duel:
    """`beit batch` and a rival in alternating runs. Ratios of images per second: above 1, `beit batch` is faster."""

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
    """A configuration of a rival, and the options of the `beit batch` that it is compared with."""

    setting: str
    command: tuple[str, ...]
    options: tuple[str, ...]


def check_rivals(names: Iterable[str]) -> None:
    """Raise UsageError for a rival that is unknown or not installed."""
    for name in names:
        if name not in RIVALS:
            raise UsageError(f"`vs={name}`: no such rival", f"one of {', '.join(RIVALS)}")
        if find_spec(name) is None:
            raise UsageError(f"`vs={name}`: it is not installed", f"pip install {name}")


def check_device(names: Iterable[str], device: str) -> None:
    """Raise UsageError for a rival that does not run on that device."""
    if "openvino" in names and device != "cpu":
        raise UsageError(f"`vs=openvino`: it is measured on the CPU, but beit runs on {device}", "add `device=cpu`")


def duels(names: Iterable[str], workload: Workload, folder: str, effort: Effort) -> list[Duel]:
    """One comparison for each configuration of each rival; files that a rival prepares go into `folder`."""
    results = []
    for name in dict.fromkeys(names):
        for program in _openvino(workload, folder) if name == "openvino" else _transformers(workload):
            log.info("measuring beit batch and %s (%s) in alternating runs", name, program.setting)
            results.append(_duel(name, program, workload, effort))
    return results


def _duel(rival: str, program: _Program, workload: Workload, effort: Effort) -> Duel:
    own = batch_command(workload.model, workload.listed, workload.machine.device, program.options)
    for command in (own, program.command):
        classified(command)  # fills caches
    pairs = [(classified(own), classified(program.command)) for _ in range(effort.rounds)]
    ours, theirs = (whole_runs(workload.count, runs) for runs in zip(*pairs, strict=True))
    ratio = ours.images.per_second / theirs.images.per_second
    without_start_up = ours.reported_median / theirs.reported_median
    options = " ".join(program.options)
    return Duel(options, rival, version(rival), program.setting, ours, theirs, ratio, without_start_up)


def _module(name: str) -> tuple[str, ...]:
    return sys.executable, "-m", f"beitcli.bench.rivals.{name}"


def _transformers(workload: Workload) -> Iterator[_Program]:
    """Its pipeline with the defaults of its documentation, and tuned for this machine.

    Worker processes for decoding are used only with enough cores: on two they made it slower.
    """
    machine = workload.machine
    command = (*_module("transformers_pipeline"), "--device", machine.device)
    files = (workload.model, workload.listed)
    yield _Program("defaults: fp32, batch 1", (*command, *files), ())
    workers = min(machine.cores, _MAX_WORKERS) if machine.device != "cpu" or machine.cores >= _MAX_WORKERS else 0
    dtype, batch = _TORCH_DTYPES[machine.best_dtype], str(_BATCH)
    tuned = ("--dtype", dtype, "--batch-size", batch, "--workers", str(workers))
    setting = f"tuned: {machine.best_dtype}, batch {batch}, {workers} workers"
    yield _Program(setting, (*command, *tuned, *files), _tuned(machine))


def _tuned(machine: "Machine") -> tuple[str, ...]:
    return ("--compile",) if machine.compiles else ()


def _openvino(workload: Workload, folder: str) -> Iterator[_Program]:
    """Its throughput mode, on a model that is exported once before timing; against a tuned run, and one in int8."""
    machine = workload.machine
    dtype = "bf16" if machine.fast_bf16 else "fp32"
    threads = max(2, min(machine.cores, _MAX_WORKERS))
    exported = os.path.join(folder, "openvino.xml")
    log.info("exporting the model to OpenVINO")
    finished((*_module("openvino_export"), workload.model, exported, "--batch-size", str(_BATCH)))
    setting = f"{dtype}, batch {_BATCH}, throughput mode, {threads} decoding threads"
    options = ("--dtype", dtype, "--threads", str(threads))
    command = (*_module("openvino_queue"), *options, workload.model, exported, workload.listed)
    for own in (_tuned(machine), ("--dtype", "int8")):
        yield _Program(setting, command, own)
