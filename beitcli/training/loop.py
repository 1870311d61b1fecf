"""The loop itself: transformers' Trainer over batches that know their own randomness, stopped and resumed at any time."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from beitcli import signals
from beitcli.training.batches import Batches, only

SAVING_SHARE = 0.05
"""Of the time that may go into checkpoints."""

MOST_LOST = 120.0
"""Seconds after which there is another checkpoint, unless saving takes more than its share of the time."""

GRACE = 30.0
"""Seconds that a step and its checkpoint may take after a request to stop."""

LOSS_STEPS = 10
"""Steps whose mean loss is told."""

_AVERAGE = "average.pt"


@dataclass(frozen=True, slots=True)
class Schedule:
    """How the rates go: up for so many steps, then down along a cosine; gradients are clipped, weights averaged."""

    warmup_steps: int
    clip: float
    average_decay: float
    accumulate: int = 1


@dataclass(frozen=True, slots=True)
class Pace:
    """How far a training is: `loss` is the mean of the last steps, `rate` in pictures a second, `left` in seconds."""

    epoch: float
    step: int
    steps: int
    loss: float | None
    rate: float
    left: float


def train(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    batches: Batches,
    schedule: Schedule,
    arguments: "Arguments",
) -> dict[str, Tensor]:
    """The averaged weights after the last step, by name; goes on from the newest checkpoint in the folder if there is one.

    Raises Stopped, behind a checkpoint, where the process is asked to end.
    """
    average = AveragedModel(network, multi_avg_fn=_averaging(schedule.average_decay))
    keeper = _Keeper(average)
    settings = _settings(schedule, arguments, len(batches) // schedule.accumulate)
    teller = _Teller(arguments.tell, batches.batch_size * schedule.accumulate, batches.in_epoch / schedule.accumulate)
    trainer = _Trainer(
        _Learner(network),
        settings,
        data_collator=only,
        train_dataset=batches,
        optimizers=(optimiser, None),
        callbacks=[keeper, teller],
    )
    trainer.remove_callback(PrinterCallback)  # it prints to stdout
    with signals.held(GRACE):
        trainer.train(resume_from_checkpoint=newest_checkpoint(arguments.folder))
    signals.check()
    return dict(average.module.state_dict())


@dataclass(frozen=True, slots=True)
class Arguments:
    """Where a training runs, and whom it tells how far it is."""

    folder: str
    device: str
    dtype: str
    workers: int
    tell: Callable[[Pace], None] = field(compare=False)


def newest_checkpoint(folder: str) -> str | None:
    """The newest checkpoint in the folder that is whole: its averaged weights were written last."""
    places = [entry.path for entry in os.scandir(folder) if os.path.isfile(os.path.join(entry.path, _AVERAGE))]
    return max(places, key=lambda path: int(path.rpartition("-")[2]), default=None)


def _settings(schedule: Schedule, arguments: Arguments, steps: int) -> TrainingArguments:
    return TrainingArguments(
        output_dir=arguments.folder,
        per_device_train_batch_size=1,  # a batch is one item
        num_train_epochs=1,  # and all epochs are one pass over the batches
        train_sampling_strategy="sequential",
        gradient_accumulation_steps=schedule.accumulate,
        lr_scheduler_type="cosine",
        warmup_steps=min(schedule.warmup_steps, steps // 2),
        max_grad_norm=schedule.clip,
        use_cpu=arguments.device == "cpu",
        bf16=arguments.dtype == "bf16",
        fp16=arguments.dtype == "fp16",
        dataloader_num_workers=arguments.workers,
        dataloader_pin_memory=arguments.device.startswith("cuda"),
        save_strategy="no",
        save_total_limit=2,
        logging_steps=LOSS_STEPS,
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

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: object = None) -> Tensor:
        torch.manual_seed(inputs.pop("seed"))
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        return loss


def _averaging(decay: float) -> Callable[[list[Tensor], list[Tensor], Tensor | int], None]:
    """An exponential average whose memory grows with the training: at first the weights are those of the start."""

    @torch.no_grad()
    def average(averaged: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
        steps = int(count)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + steps) / (10 + steps)))

    return average


class _Keeper(TrainerCallback):  # type: ignore[misc]
    """Averages the weights step by step, and asks for checkpoints: by the clock, and before the process ends."""

    def __init__(self, average: AveragedModel) -> None:
        self._average = average
        self._saved = time.monotonic()
        self._cost = 0.0
        self._begun = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        checkpoint = newest_checkpoint(args.output_dir)
        if state.global_step and checkpoint:
            self._average.load_state_dict(torch.load(os.path.join(checkpoint, _AVERAGE), weights_only=True))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: _Learner, **_: object
    ) -> None:
        self._average.update_parameters(model.network)
        self._begun = time.monotonic()
        try:
            signals.check()
        except signals.Stopped:
            control.should_save = control.should_training_stop = True
        if self._begun - self._saved > max(MOST_LOST, self._cost / SAVING_SHARE):
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        path = os.path.join(args.output_dir, f"checkpoint-{state.global_step}", _AVERAGE)
        torch.save(self._average.state_dict(), path + ".part")
        os.replace(path + ".part", path)
        self._saved = time.monotonic()
        self._cost = self._saved - self._begun


class _Teller(TrainerCallback):  # type: ignore[misc]
    """Tells after every step how far the training is."""

    def __init__(self, tell: Callable[[Pace], None], step_pictures: int, steps_in_epoch: float) -> None:
        self._tell = tell
        self._step_pictures = step_pictures
        self._steps_in_epoch = steps_in_epoch
        self._first: tuple[int, float] | None = None
        self._loss: float | None = None

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float],
        **_: object,
    ) -> None:
        self._loss = logs.get("loss", self._loss)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        now = time.monotonic()
        if self._first is None:  # a first step may compile, and says nothing of the others
            self._first = state.global_step, now
            return
        steps = state.global_step - self._first[0]
        seconds = (now - self._first[1]) / steps
        left = (state.max_steps - state.global_step) * seconds
        rate = self._step_pictures / seconds
        epoch = state.global_step / self._steps_in_epoch
        self._tell(Pace(epoch, state.global_step, state.max_steps, self._loss, rate, left))
