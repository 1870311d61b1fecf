"""The whole benchmark, from a shape and images to a report."""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from tempfile import TemporaryDirectory

from safetensors import SafetensorError

from beitcli import __version__
from beitcli.bench.agreement import agreements
from beitcli.bench.ceiling import Ceiling, ceiling
from beitcli.bench.clock import Effort
from beitcli.bench.decoding import decoding_rates
from beitcli.bench.images import MeasuredImages, described, make_images, readable_files
from beitcli.bench.machine import this_machine
from beitcli.bench.model import ModelRate, model_rates, runtimes
from beitcli.bench.processes import batch_command, classified, start_up, whole_runs
from beitcli.bench.recommendation import recommend
from beitcli.bench.report import Benchmark
from beitcli.bench.shapes import TINY, Shape
from beitcli.bench.versus import Workload, check_device, duels
from beitcli.bench.weights import make_checkpoint
from beitcli.errors import BeitError
from beitcli.inputs.worker import can_start_workers
from beitcli.model.checkpoint import Checkpoint, open_checkpoint
from beitcli.model.preprocessing import Preprocessing, checkpoint_preprocessing
from beitcli.model.runtime import Runtime
from beitcli.records import Found

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BenchmarkPlan:
    """Settings of a benchmark: numbers of `images` and of `cores` to use, and `rivals` to compare with."""

    shape: Shape
    device: str
    rivals: tuple[str, ...]
    images: int
    cores: int
    effort: Effort


def measure(found: Iterator[Found] | None, plan: BenchmarkPlan) -> Benchmark:
    """Run the whole benchmark on the images found, or on synthetic ones if `found` is None.

    Whole processes are measured first, while this one is small. Raises UsageError for a device that is absent.
    """
    machine = this_machine(plan.device, plan.cores)
    check_device(plan.rivals, machine.device)
    with TemporaryDirectory(prefix="beit-bench-", ignore_cleanup_errors=True) as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # compiled networks of this model are removed with it
        log.info("generating a model of the shape %s", plan.shape.name)
        try:
            checkpoint = open_checkpoint(make_checkpoint(plan.shape, os.path.join(folder, "model")), None)
            preprocessing = checkpoint_preprocessing(checkpoint.processor, None)
            paths, images = _images(found, plan, preprocessing, os.path.join(folder, "images"))
            workload = Workload(checkpoint.name, _listed(paths, folder), len(paths), machine)
        except (OSError, SafetensorError) as error:
            raise BeitError(f"cannot set up the benchmark: {error}", "is there room in TMPDIR?") from error
        log.info("measuring start-up")
        starts = start_up(checkpoint.name, paths[0], machine.device, plan.effort)
        log.info("measuring beit batch on %d images", len(paths))
        command = batch_command(workload.model, workload.listed, machine.device)
        classified(command)
        batch = whole_runs(len(paths), (classified(command) for _ in range(plan.effort.rounds)))
        compared = duels(plan.rivals, workload, folder, plan.effort)
        log.info("measuring decoding")
        decoding = decoding_rates(paths, preprocessing, plan.effort)
        to_measure = runtimes(machine.device, compiled=machine.compiles and plan.shape is not TINY)
        ceilings, models = _in_each_runtime(plan, to_measure, checkpoint, preprocessing)
        log.info("comparing logits with those in fp32")
        agreed = agreements(paths, checkpoint, preprocessing, to_measure)
    return Benchmark(
        version=__version__,
        shape=plan.shape,
        gflop_per_image=plan.shape.gflop,
        machine=machine,
        images=images,
        ceilings=ceilings,
        models=models,
        agreements=agreed,
        decoding=decoding,
        start_up=starts,
        batch=batch,
        duels=compared,
        recommendation=recommend(models, decoding, plan.cores),
    )


def _images(
    found: Iterator[Found] | None, plan: BenchmarkPlan, preprocessing: Preprocessing, folder: str
) -> tuple[list[str], MeasuredImages]:
    """The images' paths and statistics."""
    if found is None:
        log.info("generating %d images", plan.images)
        paths = make_images(plan.images, folder)
        return paths, described(paths, left_out=0, synthetic=True)
    log.info("reading at most %d images", plan.images)
    paths, left_out = readable_files(
        found, plan.images, folder, preprocessing, plan.cores if can_start_workers() else 0
    )
    return paths, described(paths, left_out, synthetic=False)


def _listed(paths: list[str], folder: str) -> str:
    """The path of a list of these images that `files_from` takes with `null`."""
    path = os.path.join(folder, "list")
    with open(path, "wb") as stream:
        stream.writelines(os.fsencode(name) + b"\0" for name in paths)
    return path


def _in_each_runtime(
    plan: BenchmarkPlan, to_measure: list[Runtime], checkpoint: Checkpoint, preprocessing: Preprocessing
) -> tuple[list[Ceiling], list[ModelRate]]:
    ceilings: dict[str, Ceiling] = {}
    models: list[ModelRate] = []
    for runtime in to_measure:
        if runtime.dtype not in ceilings:
            log.info("measuring the ceiling in %s", runtime.dtype)
            ceilings[runtime.dtype] = ceiling(plan.shape, runtime, plan.effort)
        log.info("measuring the model in %s%s", runtime.dtype, ", compiled" if runtime.compiled else "")
        linear_rate = ceilings[runtime.dtype].linears.per_second
        models += model_rates(plan.shape, checkpoint, preprocessing, runtime, linear_rate, plan.effort)
    return list(ceilings.values()), models
