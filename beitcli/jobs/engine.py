"""The engine of a run: checkpoint, preprocessing, runtime, batch size, workers."""

import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from itertools import chain
from math import ceil
from multiprocessing import current_process
from typing import TYPE_CHECKING, Any, Generic

from beitcli import signals
from beitcli.errors import ModelError, UsageError
from beitcli.inputs.worker import can_start_workers
from beitcli.jobs.discovery import Lookahead
from beitcli.jobs.distribution import engine_of, on_one_device
from beitcli.jobs.requests import Compute, ModelChoice, Request
from beitcli.jobs.tasks import Task
from beitcli.model.catalog import has_smaller
from beitcli.model.checkpoint import Checkpoint, open_checkpoint
from beitcli.model.cpu.cores import usable_cores
from beitcli.outputs.destination import reserved_standard_output
from beitcli.records import Failure, Found, Identity, ResultRecord, Source, printable
from beitcli.timings import Timings
from beitcli.workers.messages import Chosen
from beitcli.workers.run import Engine, PooledRun, StoredResults
from beitcli.workers.settings import chosen_of, with_chosen

if TYPE_CHECKING:
    from beitcli.model.preprocessing import Preprocessing, ProcessorPreprocessing
    from beitcli.model.runtime import Runtime
    from beitcli.pipeline import Model, Settings

log = logging.getLogger(__name__)

MAX_WORKERS = 8
"""Maximum number of decoding processes that a run chooses by itself."""


@dataclass(frozen=True, slots=True)
class RunContext:
    """Everything around the predictions of a run.

    `decide` gets the settings that the run chooses, and gives those that hold; `known` are results that the run has,
    and `on_workers` gets the number of workers. `model_digest` is that of the checkpoint's files, if it is known.
    """

    timings: Timings
    decide: Callable[[Chosen], Chosen] = lambda chosen: chosen
    known: StoredResults = field(default_factory=StoredResults)
    on_workers: Callable[[int], object] = lambda _: None
    model_digest: str = ""
    ordered: bool = True


@dataclass(frozen=True, slots=True)
class RunPlan(Generic[ResultRecord]):
    """The computation of a run: the request, its checkpoint, and how one result is made.

    With `padded` batches no result depends on other images; with `digest` identical images are recognised.
    """

    request: Request
    checkpoint: Checkpoint
    load: "Callable[[Settings], Model]"
    record: Callable[[Source, Any, Identity, bool], ResultRecord]
    padded: bool
    digest: bool = False

    def at(self, checkpoint: Checkpoint, device: str, cores: int) -> "RunPlan[ResultRecord]":
        """The same on this device, with the checkpoint as it is found there, and no more decoders than cores."""
        compute, inputs = self.request.compute, replace(self.request.inputs, inputs=None)
        workers = min(cores, MAX_WORKERS) if compute.workers is None else compute.workers
        compute = replace(compute, device=device, devices=None, engine="local", workers=workers)
        return replace(self, checkpoint=checkpoint, request=replace(self.request, inputs=inputs, compute=compute))

    def settings(self, count: Callable[[int], int]) -> "Settings":
        """The settings of the pipeline here; `count(n)` gives the number of inputs, at most n."""
        return settings_for(self.request, self.checkpoint, count, padded=self.padded, digest=self.digest)


def plan_of(request: Request, task: Task[ResultRecord], *, padded: bool, digest: bool = False) -> RunPlan[ResultRecord]:
    """The plan of a task."""
    return RunPlan(request, task.checkpoint, task.load, task.record, padded, digest)


def predict_records(
    found: Iterator[Found], plan: RunPlan[ResultRecord], context: RunContext
) -> Generator[list[ResultRecord | Failure], None, None]:
    """Records of the inputs, in lists. Without inputs, nothing heavy is imported.

    They are in the order of the inputs, unless several workers compute them and the run does not need it.
    """
    first = next(found, None)
    if first is None:
        return
    lookahead = Lookahead(chain([first], found))
    engine = engine_of(plan.request.compute)
    if engine is not None:
        yield from _predict_elsewhere(lookahead, plan, context, engine)
        return
    from beitcli.pipeline import Predictor, predict

    settings = plan.settings(lookahead.count)
    settings = with_chosen(settings, context.decide(chosen_of(settings)))
    signals.check()  # an import may have swallowed the exception of a signal
    log.debug(
        "%s on %s in %s%s, %d images a batch, %d decoding processes",
        settings.checkpoint.folder,
        settings.runtime.device,
        settings.runtime.dtype,
        ", compiled" if settings.runtime.compiled else "",
        settings.batch_size,
        settings.workers,
    )
    predictor = Predictor(settings, plan.load, plan.record)
    yield from predict(lookahead, predictor, context.timings, context.known.result_of)


def _predict_elsewhere(
    lookahead: Lookahead, plan: RunPlan[ResultRecord], context: RunContext, engine: Engine
) -> Generator[list[ResultRecord | Failure], None, None]:
    """Records by the workers of an engine."""
    from beitcli.workers.pool import Pool

    plan.checkpoint.files()  # downloaded once, by this process
    compute = plan.request.compute
    run = PooledRun(
        plan=replace(plan, padded=True),
        record=plan.record,
        timings=context.timings,
        decide=context.decide,
        known=context.known,
        digest=None if engine.is_here else context.model_digest or plan.checkpoint.content_digest(),
        on_workers=context.on_workers,
        strict=compute.strict,
        ordered=context.ordered,
        countable=plan.request.inputs.files_from != "-",
    )
    with (
        nullcontext() if engine.is_here else reserved_standard_output(),
        closing(Pool(engine, run).records(lookahead)) as records,
    ):
        yield from records


def settings_for(
    request: Request, checkpoint: Checkpoint, count: Callable[[int], int], *, padded: bool, digest: bool = False
) -> "Settings":
    """Settings of a run; `count(n)` gives the number of inputs, at most n, to decide whether compiling pays off."""
    from beitcli.model.runtime import INT8, choose_batch_size, choose_runtime, memory_of
    from beitcli.pipeline import Settings

    compute, limits = on_one_device(request.compute), request.limits
    runtime = replace(choose_runtime(compute.device, compute.precision), many_batches=padded)
    preprocessing = _preprocessing(request.model, checkpoint)
    counted = None if request.inputs.files_from == "-" else count  # stdin may still be growing
    if compute.compile is None:
        runtime = replace(runtime, compiled=_is_worth_compiling(runtime, checkpoint, preprocessing, counted))
    elif compute.compile:
        runtime = replace(runtime, compiled=True)
    size = preprocessing.shape[:2] if preprocessing.shape[-1] == 3 else preprocessing.shape[1:]
    device = runtime.device
    return Settings(
        checkpoint=checkpoint,
        preprocessing=preprocessing,
        runtime=runtime,
        batch_size=compute.batch_size or choose_batch_size(device, (size[0], size[1]), memory_of(device)),
        padded=padded,
        workers=workers_for(compute),
        decoding=replace(limits.decoding(digest), scaled_to=preprocessing.scaled_to if limits.fast_decode else None),
        fetching=limits.fetching(),
        checked=_images_to_check(compute, counted) if runtime.dtype == INT8 else 0,
    )


def _images_to_check(compute: Compute, count: Callable[[int], int] | None) -> int:
    from beitcli.model.self_check import MOST_IMAGES, SHARE

    if not compute.check_int8:
        return 0
    enough = round(MOST_IMAGES / SHARE)
    return min(MOST_IMAGES, ceil(SHARE * count(enough))) if count else MOST_IMAGES


def workers_for(compute: Compute) -> int:
    """Number of decoding processes: the one requested, or one per core up to a maximum.

    None in a daemonic process, and on a machine that cannot share locks between processes.

    Raises UsageError for a number that this process cannot have.
    """
    if not current_process().daemon:
        wanted = min(usable_cores(), MAX_WORKERS) if compute.workers is None else compute.workers
        return wanted if wanted and can_start_workers() else 0
    if compute.workers:
        raise UsageError(f"`workers={compute.workers}`: a daemonic process may have no children", "leave `workers=0`")
    return 0


def open_model(model: ModelChoice) -> Checkpoint:
    """The requested classifier of any architecture, with a notice for the demo."""
    checkpoint = open_classifier(model)
    warn_if_demo(checkpoint)
    return checkpoint


def open_classifier(model: ModelChoice) -> Checkpoint:
    """The requested classifier of any architecture. Raises ModelError where it cannot be had, or is none yet."""
    checkpoint = open_checkpoint(model.model, model.revision)
    if checkpoint.is_pretrained_only:
        name = printable(model.model)
        raise ModelError(
            f"`{name}` is pre-trained only: it has no classes yet",
            "`beit train` gives it yours; `beit embed` takes it as it is",
        )
    return checkpoint


def open_beit(model: ModelChoice) -> Checkpoint:
    """The requested BEiT. Raises UsageError for another architecture, or a size that its patches do not fill."""
    checkpoint = open_checkpoint(model.model, model.revision)
    if not checkpoint.is_beit:
        raise UsageError(f"`{checkpoint.name}` is no BEiT", "`beit models` lists those with an alias")
    _check_side(model, checkpoint)
    return checkpoint


def helpful_stages(request: Request, task: Task[Any]) -> frozenset[str]:
    """The stages of `Timings` for which the command line has an option that makes this task faster."""
    checkpoint = task.checkpoint
    stages: set[str] = set()
    if checkpoint.is_beit and not request.limits.fast_decode:
        stages.add("decoding")
    if task.command != "eval" and has_smaller(checkpoint.repository.location):  # an evaluation is of its model
        stages.add("model")
    return frozenset(stages)


def warn_if_demo(checkpoint: Checkpoint) -> None:
    """Log what the demo model is for, if it is the one."""
    if checkpoint.is_demo:
        log.info("the demo model knows %d things and is for trying the tool", len(checkpoint.labels))


def beit_preprocessing(model: ModelChoice, checkpoint: Checkpoint) -> "Preprocessing":
    """Preprocessing for a BEiT. Raises UsageError for a size that is no multiple of its patches."""
    from beitcli.model.preprocessing import checkpoint_preprocessing, paper_preprocessing

    _check_side(model, checkpoint)
    if model.preprocess == "paper":
        return paper_preprocessing(model.image_size or checkpoint.image_side)
    return checkpoint_preprocessing(checkpoint.processor, model.image_size)


def _is_worth_compiling(
    runtime: "Runtime",
    checkpoint: Checkpoint,
    preprocessing: "Preprocessing | ProcessorPreprocessing",
    count: Callable[[int], int] | None,
) -> bool:
    from beitcli.model.cpu.own_layers import is_worth_compiling
    from beitcli.model.preprocessing import Preprocessing

    return isinstance(preprocessing, Preprocessing) and is_worth_compiling(checkpoint, preprocessing, runtime, count)


def _preprocessing(model: ModelChoice, checkpoint: Checkpoint) -> "Preprocessing | ProcessorPreprocessing":
    from beitcli.model.preprocessing import processor_preprocessing

    if not checkpoint.is_beit:
        if model.preprocess == "paper":
            raise UsageError(f"`preprocess=paper`: `{checkpoint.name}` is no BEiT")
        return processor_preprocessing(checkpoint.folder, model.image_size)
    return beit_preprocessing(model, checkpoint)


def _check_side(model: ModelChoice, checkpoint: Checkpoint) -> None:
    patch = checkpoint.patch_side
    if model.image_size is not None and model.image_size % patch:
        raise UsageError(f"`image_size={model.image_size}`: `{checkpoint.name}` needs a multiple of {patch}")
