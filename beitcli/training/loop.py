"""The loop itself: transformers' Trainer over batches that bring their own randomness, stopped and resumed anywhere."""

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
from beitcli.errors import MAKE_ROOM, BeitError, DeviceError, OutputError, first_line
from beitcli.inputs.worker import START_METHOD, settle_in
from beitcli.model.forward import is_out_of_memory
from beitcli.records import printable
from beitcli.training.batches import Batches, Order, only
from beitcli.training.method import Method, Schedule
from beitcli.training.workplace import sync_files, work_errors

log = logging.getLogger(__name__)

SAVING_SHARE = 0.05
"""Of the time that may go into checkpoints."""

MOST_LOST = 120.0
"""Seconds after which there is another checkpoint, unless saving takes more than its share of the time."""

GRACE = 30.0
"""Seconds that a step and its checkpoint may take after a request to stop."""

LOSS_STEPS = 10
"""Steps whose mean loss is told."""

_STATE = "average.pt"


@dataclass(frozen=True, slots=True)
class Pace:
    """How far a training is: `loss` is the mean of the last steps, `rate` in pictures a second, `left` in seconds."""

    epoch: float
    step: int
    steps: int
    loss: float | None
    rate: float
    left: float


@dataclass(frozen=True, slots=True)
class Place:
    """Where a training runs: the folder of its checkpoints, device and dtype, and processes that make batches."""

    folder: str
    device: str
    dtype: str
    workers: int


def train(method: Method, batches: Batches, place: Place, tell: Callable[[Pace], None]) -> "Trained":
    """The averaged weights after the last step; goes on from the newest checkpoint in the folder if there is one.

    Raises Stopped, behind a checkpoint, where the process is asked to end, DeviceError where memory does not suffice,
    and BeitError where the loss is no number any more.
    """
    steps = math.ceil(len(batches) / method.schedule.accumulate)
    average = AveragedModel(method.network, multi_avg_fn=_averaging(method.schedule.average_decay))
    keeper = _Keeper(average)
    trainer = _Trainer(
        _Learner(method.network),
        _settings(method.schedule, place),
        train_dataset=batches,
        optimizers=(method.optimiser, None),
        callbacks=[keeper, _Teller(tell, batches.order, steps)],
    )
    trainer.remove_callback(PrinterCallback)  # it prints to stdout
    _forget_halves(place.folder)
    try:
        with signals.held(GRACE), device_errors(place.device, place.folder), _no_worker_left():
            trainer.train(resume_from_checkpoint=newest_checkpoint(place.folder))
        signals.check()
    except signals.Stopped:
        kept = (newest_checkpoint(place.folder) or "-0").rpartition("-")[2]
        log.info("stopped: %s of %d steps are in `%s`; the same command goes on from there", kept, steps, place.folder)
        raise
    return Trained(dict(average.module.state_dict()), keeper.seconds)


@contextmanager
def device_errors(device: str, folder: str) -> Iterator[None]:
    """Turns what too little memory raises, in this process or one that makes batches, into a DeviceError.

    `folder` is where the training is.
    """
    try:
        yield
    except (RuntimeError, MemoryError, ConnectionError, EOFError) as error:
        if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and is_out_of_memory(error)):
            hint = f"delete `{printable(folder)}`, then a smaller --batch-size with more --accumulate takes less"
            raise DeviceError(f"{device} has too little memory for a step", hint) from error
        if _is_of_a_worker(error):
            hint = "the same command goes on from the last checkpoint; fewer --workers take less memory"
            raise DeviceError("a process that makes batches has died", hint) from error
        raise


def _is_of_a_worker(error: Exception) -> bool:
    """Whether a DataLoader has noticed a death, or there was nobody at the other end of its queue or socket."""
    return isinstance(error, ConnectionError | EOFError) or "DataLoader worker (pid" in str(error)


@contextmanager
def _no_worker_left() -> Iterator[None]:
    """Ends the processes that are started inside: they take no signals, and at the exit they would be waited for."""
    others = multiprocessing.active_children()
    try:
        yield
    finally:
        for worker in multiprocessing.active_children():
            if worker not in others:
                worker.kill()


@dataclass(frozen=True, slots=True)
class Trained:
    """Averaged weights by name, and the seconds of all runs that went into them."""

    weights: dict[str, Tensor]
    seconds: float


def newest_checkpoint(folder: str) -> str | None:
    """The newest checkpoint in the folder that is whole: its averaged weights were written last."""
    whole = [path for path in _checkpoints(folder) if os.path.isfile(os.path.join(path, _STATE))]
    return max(whole, key=lambda path: int(path.rpartition("-")[2]), default=None)


def _checkpoints(folder: str) -> list[str]:
    return glob(os.path.join(glob_escape(folder), "checkpoint-*"))


def _forget_halves(folder: str) -> None:
    """Removes checkpoints that a kill has cut short: the Trainer, which keeps two, would count them."""
    for path in _checkpoints(folder):
        if not os.path.isfile(os.path.join(path, _STATE)):
            shutil.rmtree(path, ignore_errors=True)


def _settings(schedule: Schedule, place: Place) -> TrainingArguments:
    return TrainingArguments(
        output_dir=place.folder,
        per_device_train_batch_size=1,  # a batch is one item
        num_train_epochs=1,  # and all epochs are one pass over the batches
        gradient_accumulation_steps=schedule.accumulate,
        lr_scheduler_type="cosine",
        warmup_steps=schedule.warmup_steps,
        max_grad_norm=schedule.clip,
        use_cpu=place.device == "cpu",
        bf16=place.dtype == "bf16",
        fp16=place.dtype == "fp16",
        dataloader_num_workers=place.workers,
        save_strategy="no",
        save_total_limit=2,
        logging_steps=LOSS_STEPS,
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
    )


class _Learner(nn.Module):
    """A network with the loss that it is trained by.

    No `PreTrainedModel`: those are saved under the names of the Hub's files, and the Trainer (of transformers 5.23),
    which then finds none of its own names in its checkpoint, goes on from the random weights of the start.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, targets: Tensor, **inputs: Any) -> dict[str, Tensor]:
        return {"loss": F.cross_entropy(self.network(**inputs).logits.float(), targets)}


class _Trainer(Trainer):  # type: ignore[misc]
    """Draws what is random from the seed of the batch, so that nothing depends on what was drawn before."""

    _has_learnt = False

    def get_train_dataloader(self) -> DataLoader[Any]:
        """One that Ctrl-C does not reach: its workers leave signals to this process."""
        workers = self.args.dataloader_num_workers
        return DataLoader(
            self.train_dataset,
            collate_fn=only,
            num_workers=workers,
            worker_init_fn=_settle_in,
            multiprocessing_context=START_METHOD if workers else None,
        )

    def _save_checkpoint(self, *of_what: Any) -> None:
        with _saving():
            super()._save_checkpoint(*of_what)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: object = None) -> Tensor:
        if not self._has_learnt:  # a first step may compile for a minute, and there is nothing to lose yet
            self._has_learnt = True
            with signals.held(signals.GRACE):
                return self.training_step(model, inputs, num_items_in_batch)
        seed = inputs.pop("seed")
        torch.manual_seed(seed)
        try:
            return self._learn(model, inputs, num_items_in_batch)
        except TorchDynamoException as error:  # also where the compiler has got the terminal's Ctrl-C
            log.info("the layers run uncompiled, which takes longer: %s", first_line(error))
        torch.compiler.set_stance("force_eager")
        torch.manual_seed(seed)
        return self._learn(model, inputs, num_items_in_batch)

    def _learn(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: object) -> Tensor:
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        return loss


@contextmanager
def _saving() -> Iterator[None]:
    """Turns what writing a checkpoint raises into an OutputError; torch has no error of its own for a full disk."""
    try:
        with work_errors():
            yield
    except RuntimeError as error:
        if _is_of_a_worker(error):
            raise
        raise OutputError(f"cannot write a checkpoint: {first_line(error)}", MAKE_ROOM) from error


def _settle_in(_worker: int) -> None:
    settle_in()


_Tensors: TypeAlias = tuple[Tensor, ...] | list[Tensor]


def _averaging(decay: float) -> Callable[[_Tensors, _Tensors, Tensor | int], None]:
    """An exponential average whose memory grows with the training: at first the weights are those of the start."""

    @torch.no_grad()
    def average(averaged: _Tensors, current: _Tensors, count: Tensor | int) -> None:
        steps = int(count)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + steps) / (10 + steps)))

    return average


class _Keeper(TrainerCallback):  # type: ignore[misc]
    """Averages the weights step by step, and asks for checkpoints: by the clock, and before the process ends."""

    def __init__(self, average: AveragedModel) -> None:
        self._average = average
        self._started = self._saved = self._now = time.monotonic()
        self._cost = 0.0

    @property
    def seconds(self) -> float:
        """What the training has taken until the last step, earlier runs included."""
        return self._now - self._started

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: object, **__: object) -> None:
        checkpoint = newest_checkpoint(args.output_dir)
        if state.global_step and checkpoint:
            kept = torch.load(os.path.join(checkpoint, _STATE), map_location="cpu", weights_only=True)
            self._average.load_state_dict(kept["average"])
            self._started -= kept["seconds"]

    def on_step_end(
        self, _args: TrainingArguments, state: TrainerState, control: TrainerControl, model: _Learner, **_: object
    ) -> None:
        self._average.update_parameters(model.network)
        self._now = time.monotonic()
        try:
            signals.check()
        except signals.Stopped:
            control.should_save = control.should_training_stop = True
        is_last = state.global_step >= state.max_steps  # what comes now, validation, may be stopped, too
        control.should_log |= is_last
        if is_last or self._now - self._saved > max(MOST_LOST, self._cost / SAVING_SHARE):
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: object, **__: object) -> None:
        folder = os.path.join(args.output_dir, f"checkpoint-{state.global_step}")
        path = os.path.join(folder, _STATE)
        with _saving():
            torch.save({"average": self._average.state_dict(), "seconds": self.seconds}, path + ".part")
            sync_files(folder)
            os.replace(path + ".part", path)
        self._saved = time.monotonic()
        self._cost = self._saved - self._now


class _Teller(TrainerCallback):  # type: ignore[misc]
    """Tells after every step how far the training is."""

    def __init__(self, tell: Callable[[Pace], None], order: Order, steps: int) -> None:
        self._tell = tell
        self._epochs_a_step = order.epochs / steps
        self._pictures_a_step = len(order) * order.size / steps
        self._first: tuple[int, float] | None = None
        self._loss: float | None = None

    def on_log(
        self, args: TrainingArguments, state: TrainerState, *_: object, logs: dict[str, float], **__: object
    ) -> None:
        self._loss = logs.get("loss", self._loss)
        is_lost = self._loss is not None and not math.isfinite(self._loss)
        if is_lost and not args.fp16:  # there a step may overflow, and is left out
            hint = f"delete `{printable(args.output_dir)}`, then a smaller --lr"
            raise BeitError(f"the loss is {self._loss} at step {state.global_step}", hint)

    def on_step_end(self, _args: TrainingArguments, state: TrainerState, *_: object, **__: object) -> None:
        now = time.monotonic()
        if self._first is None:  # a first step may compile, and says nothing of the others
            self._first = state.global_step, now
            return
        seconds = (now - self._first[1]) / (state.global_step - self._first[0])
        self._tell(
            Pace(
                epoch=state.global_step * self._epochs_a_step,
                step=state.global_step,
                steps=state.max_steps,
                loss=self._loss,
                rate=self._pictures_a_step / seconds,
                left=(state.max_steps - state.global_step) * seconds,
            )
        )
