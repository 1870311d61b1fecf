"""The whole benchmark, from a shape and pictures to a report."""

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
from beitcli.bench.machine import this_machine
from beitcli.bench.model import ModelRate, model_rates, runtimes
from beitcli.bench.pictures import Pictures, described, make_pictures, readable_files
from beitcli.bench.processes import batch_command, classified, start_up, whole_runs
from beitcli.bench.recommendation import recommend
from beitcli.bench.report import Report
from beitcli.bench.shapes import TINY, Shape
from beitcli.bench.versus import Contest, check_device, duels
from beitcli.bench.weights import make_checkpoint
from beitcli.errors import BeitError
from beitcli.model.checkpoint import Checkpoint, open_checkpoint
from beitcli.model.recipe import Recipe, checkpoint_recipe
from beitcli.model.runtime import Runtime
from beitcli.records import Found

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure: on how many `pictures`, with how many of the machine's `cores`, and against which `rivals`."""

    shape: Shape
    device: str
    rivals: tuple[str, ...]
    pictures: int
    cores: int
    effort: Effort


def measure(found: Iterator[Found] | None, plan: Plan) -> Report:
    """Everything there is to know about this machine's speed, on what was found, or on pictures made here.

    Whole processes come first, while this one is small. Raises UsageError for a device that is absent.
    """
    machine = this_machine(plan.device, plan.cores)
    check_device(plan.rivals, machine.device)
    with TemporaryDirectory(prefix="beit-bench-", ignore_cleanup_errors=True) as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # what is compiled for this model goes with it
        log.info("making a model of the shape %s", plan.shape.name)
        try:
            checkpoint = open_checkpoint(make_checkpoint(plan.shape, os.path.join(folder, "model")), None)
            recipe = checkpoint_recipe(checkpoint.processor, None)
            paths, pictures = _pictures(found, plan, recipe, os.path.join(folder, "pictures"))
            contest = Contest(checkpoint.name, _listed(paths, folder), len(paths), machine)
        except (OSError, SafetensorError) as error:
            raise BeitError(f"nothing to measure with: {error}", "is there room in TMPDIR?") from error
        log.info("measuring start-up")
        started = start_up(checkpoint.name, paths[0], machine.device, plan.effort)
        log.info("measuring beit batch on %d pictures", len(paths))
        command = batch_command(contest.model, contest.listed, machine.device)
        classified(command)
        batch = whole_runs(len(paths), (classified(command) for _ in range(plan.effort.rounds)))
        fought = duels(plan.rivals, contest, folder, plan.effort)
        log.info("measuring decoding")
        decoding = decoding_rates(paths, recipe, plan.effort)
        ways = runtimes(machine.device, compiled=machine.compiles and plan.shape is not TINY)
        ceilings, models = _in_each_runtime(plan, ways, checkpoint, recipe)
        log.info("comparing logits with those in fp32")
        compared = agreements(paths, checkpoint, recipe, ways)
    return Report(
        version=__version__,
        shape=plan.shape,
        gflop_per_image=plan.shape.gflop,
        machine=machine,
        pictures=pictures,
        ceilings=ceilings,
        models=models,
        agreements=compared,
        decoding=decoding,
        start_up=started,
        batch=batch,
        duels=fought,
        recommendation=recommend(models, decoding, plan.cores),
    )


def _pictures(found: Iterator[Found] | None, plan: Plan, recipe: Recipe, folder: str) -> tuple[list[str], Pictures]:
    """The pictures' paths, and what there is to say of them."""
    if found is None:
        log.info("making %d pictures", plan.pictures)
        paths = make_pictures(plan.pictures, folder)
        return paths, described(paths, left_out=0, made_here=True)
    log.info("reading at most %d pictures", plan.pictures)
    paths, left_out = readable_files(found, plan.pictures, folder, recipe, plan.cores)
    return paths, described(paths, left_out, made_here=False)


def _listed(paths: list[str], folder: str) -> str:
    """The path of a list of these pictures that `--files-from` takes with `--null`."""
    path = os.path.join(folder, "list")
    with open(path, "wb") as stream:
        stream.writelines(os.fsencode(name) + b"\0" for name in paths)
    return path


def _in_each_runtime(
    plan: Plan, ways: list[Runtime], checkpoint: Checkpoint, recipe: Recipe
) -> tuple[list[Ceiling], list[ModelRate]]:
    ceilings: dict[str, Ceiling] = {}
    models: list[ModelRate] = []
    for runtime in ways:
        if runtime.dtype not in ceilings:
            log.info("measuring the ceiling in %s", runtime.dtype)
            ceilings[runtime.dtype] = ceiling(plan.shape, runtime, plan.effort)
        log.info("measuring the model in %s%s", runtime.dtype, ", compiled" if runtime.compiled else "")
        linear_rate = ceilings[runtime.dtype].linears.per_second
        models += model_rates(plan.shape, checkpoint, recipe, runtime, linear_rate, plan.effort)
    return list(ceilings.values()), models
