"""Training loop: transformers' Trainer over batches with seeds of their own, stopped and resumed at any step."""

import logging
import math
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from glob import escape as glob_escape
from glob import glob
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from beitcli import signals
from beitcli.errors import BeitError, DeviceError, first_line
from beitcli.file_system import replace
from beitcli.inputs.worker import START_METHOD, init_worker
from beitcli.model.inference import is_out_of_memory
from beitcli.records import printable
from beitcli.training.curve import CurveCallback, CurveFile, Sample
from beitcli.training.data.batches import Batches, Order, collate_single
from beitcli.training.recipes.recipe import Inputs, Method, Schedule
from beitcli.training.work_dir import sync_files, work_errors, writing_error

log = logging.getLogger(__name__)

MAX_SAVING_SHARE = 0.05
"""Largest share of the time that is spent on checkpoints."""

MAX_LOST = 120.0
"""Seconds between two checkpoints, unless saving takes more than its share of the time."""

GRACE = 30.0
"""Seconds that a step and its checkpoint may take after a request to stop."""

LOSS_STEPS = 10
"""Steps over which the reported loss is averaged."""

_AVERAGE = "average.pt"


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """Progress of a training: `loss` is the mean of the last steps, `rate` in images a second, `left` in seconds.

    `accuracy` is that of the last validation on the way.
    """

    epoch: float
    step: int
    steps: int
    loss: float | None
    accuracy: float | None
    rate: float
    left: float


@dataclass(frozen=True, slots=True)
class Environment:
    """Execution environment: checkpoint folder, device, dtype, and DataLoader workers."""

    folder: str
    device: str
    dtype: str
    workers: int


def train(
    method: Method,
    batches: Batches,
    environment: Environment,
    on_progress: Callable[[TrainingProgress], object],
    curve: CurveFile,
    sample: Sample,
) -> "TrainingResult":
    """The averaged weights after the last step; resumes from the newest checkpoint in the folder if there is one.

    `curve` gets the loss, and the accuracy on `sample` on the way.

    Raises Stopped, after a checkpoint, at a request to stop; DeviceError where memory does not suffice; BeitError where
    the loss is not finite.
    """
    steps = math.ceil(len(batches) / method.schedule.accumulate)
    average = AveragedModel(method.network, multi_avg_fn=_moving_average(method.schedule.average_decay))
    checkpoints = CheckpointCallback(average)
    validation = CurveCallback(curve, sample, method, average.module, batches.order)
    trainer = _Trainer(
        _NetworkWithLoss(method.network, method.with_targets),
        _training_arguments(method.schedule, environment),
        train_dataset=batches,
        optimizers=(method.optimizer, None),
        callbacks=[
            checkpoints,
            ProgressCallback(on_progress, batches.order, steps, validation),
            validation,
        ],
    )
    trainer.remove_callback(PrinterCallback)  # it prints to stdout
    _remove_incomplete(environment.folder)
    try:
        with signals.held(GRACE), device_errors(environment.device, environment.folder), _killing_workers():
            trainer.train(resume_from_checkpoint=newest_checkpoint(environment.folder))
        signals.check()
    except signals.Stopped:
        saved = (newest_checkpoint(environment.folder) or "-0").rpartition("-")[2]
        log.info(
            "stopped: %s of %d steps are in `%s`; the same command goes on from there", saved, steps, environment.folder
        )
        raise
    return TrainingResult(dict(average.module.state_dict()), checkpoints.seconds)


@contextmanager
def device_errors(device: str, folder: str) -> Iterator[None]:
    """Turn out-of-memory errors and dead DataLoader workers into a DeviceError; `folder` is the work directory."""
    try:
        yield
    except (RuntimeError, MemoryError, ConnectionError, EOFError) as error:
        if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and is_out_of_memory(error)):
            hint = f"delete `{printable(folder)}`, then a smaller `batch_size=` with more `accumulate=` takes less"
            raise DeviceError(f"{device} has too little memory for a step", hint) from error
        if _is_worker_death(error):
            hint = "the same command goes on from the last checkpoint; fewer `workers=` take less memory"
            raise DeviceError("a DataLoader worker has died", hint) from error
        raise


def _is_worker_death(error: Exception) -> bool:
    """True if a DataLoader worker has died: the loader reports it, or its queue or socket is closed."""
    return isinstance(error, ConnectionError | EOFError) or "DataLoader worker (pid" in str(error)


@contextmanager
def _killing_workers() -> Iterator[None]:
    """Kill the processes started inside: they ignore signals, and Python would wait for them at exit."""
    others = multiprocessing.active_children()
    try:
        yield
    finally:
        for worker in multiprocessing.active_children():
            if worker not in others:
                worker.kill()


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """Averaged weights by name, and the training time of all runs in seconds."""

    weights: dict[str, Tensor]
    seconds: float


def newest_checkpoint(folder: str) -> str | None:
    """The newest complete checkpoint in the folder: its averaged weights are written last."""
    complete = [path for path in _checkpoints(folder) if os.path.isfile(os.path.join(path, _AVERAGE))]
    return max(complete, key=lambda path: int(path.rpartition("-")[2]), default=None)


def _checkpoints(folder: str) -> list[str]:
    return glob(os.path.join(glob_escape(folder), "checkpoint-*"))


def _remove_incomplete(folder: str) -> None:
    """Remove incomplete checkpoints, left by a kill: the Trainer, which keeps two, would count them."""
    for path in _checkpoints(folder):
        if not os.path.isfile(os.path.join(path, _AVERAGE)):
            shutil.rmtree(path, ignore_errors=True)


def _training_arguments(schedule: Schedule, environment: Environment) -> TrainingArguments:
    return TrainingArguments(
        output_dir=environment.folder,
        per_device_train_batch_size=1,  # a batch is one item
        num_train_epochs=1,  # and all epochs are one pass over the batches
        gradient_accumulation_steps=schedule.accumulate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": schedule.final_share},
        warmup_steps=schedule.warmup_steps,
        max_grad_norm=schedule.clip,
        use_cpu=environment.device == "cpu",
        bf16=environment.dtype == "bf16",
        fp16=environment.dtype == "fp16",
        dataloader_num_workers=environment.workers,
        save_strategy="no",
        save_total_limit=2,
        logging_steps=LOSS_STEPS,
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
    )


class _NetworkWithLoss(nn.Module):
    """A network with its loss.

    Not a `PreTrainedModel`: the Trainer (transformers 5.23) saves those under the names of the Hub's files, does not
    find its own names in the checkpoint, and resumes from the random initial weights.
    """

    def __init__(self, network: nn.Module, with_targets: Callable[[Inputs], Inputs]) -> None:
        super().__init__()
        self.network = network
        self._with_targets = with_targets

    def forward(self, **inputs: Any) -> dict[str, Tensor]:
        inputs = self._with_targets(inputs)
        targets = inputs.pop("targets")
        return {"loss": F.cross_entropy(self.network(**inputs).logits.float(), targets)}


class _Trainer(Trainer):  # type: ignore[misc]
    """Seeds torch from each batch, so that a step does not depend on earlier random draws."""

    _has_stepped = False

    def get_train_dataloader(self) -> DataLoader[Any]:
        """A DataLoader whose workers ignore Ctrl-C and leave signals to this process."""
        workers = self.args.dataloader_num_workers
        return DataLoader(
            self.train_dataset,
            collate_fn=collate_single,
            num_workers=workers,
            worker_init_fn=_init_worker,
            multiprocessing_context=START_METHOD if workers else None,
        )

    def _save_checkpoint(self, *arguments: Any) -> None:
        with _saving(self.args.output_dir):
            super()._save_checkpoint(*arguments)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: object = None) -> Tensor:
        if not self._has_stepped:  # the first step may compile for a minute, and nothing is lost yet
            self._has_stepped = True
            with signals.held(signals.GRACE):
                return self.training_step(model, inputs, num_items_in_batch)
        seed = inputs.pop("seed")
        torch.manual_seed(seed)
        try:
            return self._plain_step(model, inputs, num_items_in_batch)
        except TorchDynamoException as error:  # also where the compiler received the terminal's Ctrl-C
            log.info("the layers run uncompiled, which takes longer: %s", first_line(error))
        torch.compiler.set_stance("force_eager")
        torch.manual_seed(seed)
        return self._plain_step(model, inputs, num_items_in_batch)

    def _plain_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: object) -> Tensor:
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        return loss


@contextmanager
def _saving(folder: str) -> Iterator[None]:
    """Turn errors of writing a checkpoint into the folder into an OutputError."""
    try:
        with work_errors():
            yield
    except RuntimeError as error:
        if _is_worker_death(error) or is_out_of_memory(error):
            raise
        raise writing_error(f"a checkpoint in `{printable(folder)}`", error) from error


def _init_worker(_worker: int) -> None:
    init_worker()


_Tensors: TypeAlias = tuple[Tensor, ...] | list[Tensor]


def _moving_average(decay: float) -> Callable[[_Tensors, _Tensors, Tensor | int], None]:
    """Exponential moving average with a decay that grows to `decay`, so that the initial weights are forgotten."""

    @torch.no_grad()
    def average(averaged: _Tensors, current: _Tensors, count: Tensor | int) -> None:
        steps = int(count)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + steps) / (10 + steps)))

    return average


class CheckpointCallback(TrainerCallback):  # type: ignore[misc]
    """Averages the weights after each step, and requests checkpoints: by the clock, and before the process ends."""

    def __init__(self, average: AveragedModel) -> None:
        self._average = average
        self._started = self._saved = self._now = time.monotonic()
        self._cost = 0.0

    @property
    def seconds(self) -> float:
        """Training time up to the last step, earlier runs included."""
        return self._now - self._started

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: object, **__: object) -> None:
        checkpoint = newest_checkpoint(args.output_dir)
        if state.global_step and checkpoint:
            saved = torch.load(os.path.join(checkpoint, _AVERAGE), map_location="cpu", weights_only=True)
            self._average.load_state_dict(saved["average"])
            self._started -= saved["seconds"]

    def on_step_end(
        self,
        _args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: _NetworkWithLoss,
        **_: object,
    ) -> None:
        self._average.update_parameters(model.network)
        self._now = time.monotonic()
        try:
            signals.check()
        except signals.Stopped:
            control.should_save = control.should_training_stop = True
        is_last = state.global_step >= state.max_steps  # the validation that follows may be stopped, too
        control.should_log |= is_last
        if is_last or self._now - self._saved > max(MAX_LOST, self._cost / MAX_SAVING_SHARE):
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: object, **__: object) -> None:
        folder = os.path.join(args.output_dir, f"checkpoint-{state.global_step}")
        path = os.path.join(folder, _AVERAGE)
        with _saving(args.output_dir):
            torch.save({"average": self._average.state_dict(), "seconds": self.seconds}, path + ".part")
            sync_files(folder)
            replace(path + ".part", path)
        self._saved = time.monotonic()
        self._cost = self._saved - self._now


class ProgressCallback(TrainerCallback):  # type: ignore[misc]
    """Reports the progress after every step."""

    def __init__(
        self, on_progress: Callable[[TrainingProgress], object], order: Order, steps: int, validation: CurveCallback
    ) -> None:
        self._on_progress = on_progress
        self._validation = validation
        self._epochs_a_step = order.epochs / steps
        self._images_a_step = len(order) * order.size / steps
        self._first: tuple[int, float] | None = None
        self._loss: float | None = None

    def on_log(
        self, args: TrainingArguments, state: TrainerState, *_: object, logs: dict[str, float], **__: object
    ) -> None:
        self._loss = logs.get("loss", self._loss)
        has_diverged = self._loss is not None and not math.isfinite(self._loss)
        if has_diverged and not args.fp16:  # in fp16 a step may overflow, and is skipped
            hint = f"delete `{printable(args.output_dir)}`, then a smaller `lr=`"
            raise BeitError(f"the loss is {self._loss} at step {state.global_step}", hint)

    def on_step_end(self, _args: TrainingArguments, state: TrainerState, *_: object, **__: object) -> None:
        now = time.monotonic()
        if self._first is None:  # the first step may compile, and is no measure of the others
            self._first = state.global_step, now
            return
        seconds = (now - self._first[1]) / (state.global_step - self._first[0])
        self._on_progress(
            TrainingProgress(
                epoch=state.global_step * self._epochs_a_step,
                step=state.global_step,
                steps=state.max_steps,
                loss=self._loss,
                accuracy=self._validation.accuracy,
                rate=self._images_a_step / seconds,
                left=(state.max_steps - state.global_step) * seconds,
            )
        )
