"""Training curve: loss, learning rate and validation accuracy by step, as JSON Lines that a resumed run continues."""

import json
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from beitcli import signals
from beitcli.model.preprocessing import Preprocessing
from beitcli.training.data.batches import Order
from beitcli.training.data.preparation import LabelledPixels
from beitcli.training.recipes.recipe import Inputs, Method
from beitcli.training.work_dir import work_errors

CURVE = "training.jsonl"

MAX_SHARE = 0.05
"""Largest share of the arithmetic that goes into validation on the way; backward passes cost two forward passes."""

MAX_IMAGES = 2000
"""Most images of one validation on the way: the accuracy of so many is known to a point."""

_BATCH_SIZE = 64


class Sample(Protocol):
    """Images for validation on the way."""

    def __len__(self) -> int: ...

    def batches(self) -> Iterator[tuple[Inputs, Tensor]]:
        """Inputs of the network, and the number of the true class for each row of its logits."""
        ...


@dataclass(frozen=True, slots=True)
class LabelledSample:
    """Evenly spaced ones of all labelled images, which are in the order of their classes."""

    part: LabelledPixels
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return min(len(self.part.examples), MAX_IMAGES)

    @property
    def numbers(self) -> list[int]:
        """The numbers of the images."""
        return [round(number) for number in np.linspace(0, len(self.part.examples) - 1, len(self)).tolist()]

    def batches(self) -> Iterator[tuple[Inputs, Tensor]]:
        """Normalised pixels (n, 3, height, width) and class numbers."""
        numbers, targets = self.numbers, self.part.targets
        preprocessing = self.preprocessing
        mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
        for start in range(0, len(numbers), _BATCH_SIZE):
            chosen = numbers[start : start + _BATCH_SIZE]
            pixels = (self.part.pixels[chosen].float() * preprocessing.factor - mean) / std
            inputs = {"pixel_values": pixels.permute(0, 3, 1, 2).contiguous()}
            yield inputs, torch.tensor([targets[number] for number in chosen])


class CurveFile:
    """The file of a curve: one JSON object a line, each with its `step` and `epoch`."""

    def __init__(self, path: str) -> None:
        self.path = path

    def add(self, **point: float | None) -> None:
        """Append a point. Raises OutputError."""
        with work_errors(), open(self.path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(point, allow_nan=False) + "\n")

    def cut(self, step: int) -> None:
        """Drop the points behind `step`, from which a training goes on, and a line that a kill has left incomplete."""
        kept = [point for point in self.points() if point["step"] <= step]
        with work_errors(), open(self.path, "w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(point) + "\n" for point in kept)

    def points(self) -> list[dict[str, Any]]:
        """All complete points."""
        found = []
        with suppress(FileNotFoundError), open(self.path, encoding="utf-8") as stream:
            for line in stream:
                with suppress(ValueError):
                    found.append(json.loads(line))
        return found


class CurveCallback(TrainerCallback):  # type: ignore[misc]
    """Appends the loss and the rate where the Trainer logs them, and the averaged weights' accuracy between epochs.

    The rate is that of the last layer, which has the recipe's own. `accuracy` is the last one.
    """

    accuracy: float | None = None

    def __init__(self, file: CurveFile, sample: Sample, method: Method, averaged: nn.Module, order: Order) -> None:
        self._file, self._sample, self._averaged, self._order = file, sample, averaged, order
        self._optimizer, self._head = method.optimizer, method.head.weight
        self._step_size = method.schedule.accumulate * order.size
        self._epochs = max(1, math.ceil(len(sample) / (3 * MAX_SHARE * order.count)))

    def on_train_begin(self, _args: object, state: TrainerState, *_: object, **__: object) -> None:
        self._file.cut(state.global_step)
        known = (point["accuracy"] for point in reversed(self._file.points()) if "accuracy" in point)
        self.accuracy = next(known, None)

    def on_log(self, _args: object, state: TrainerState, *_: object, logs: dict[str, float], **__: object) -> None:
        if "loss" in logs:
            loss = logs["loss"] if math.isfinite(logs["loss"]) else None
            self._file.add(step=state.global_step, epoch=self._epoch(state), loss=loss, rate=self._rate())

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        is_due = self._validations(state.global_step) > self._validations(state.global_step - 1)
        if not is_due or control.should_training_stop or state.global_step >= state.max_steps:
            return
        try:
            self.accuracy = self._accuracy(args)
        except signals.Stopped:
            control.should_save = control.should_training_stop = True
        else:
            self._file.add(step=state.global_step, epoch=self._epoch(state), accuracy=self.accuracy)

    def _epoch(self, state: TrainerState) -> float:
        return int(state.global_step) * self._step_size / self._order.count

    def _validations(self, step: int) -> int:
        return step * self._step_size // (self._order.count * self._epochs)

    def _rate(self) -> float:
        groups = self._optimizer.param_groups
        return float(next(group["lr"] for group in groups if any(each is self._head for each in group["params"])))

    def _accuracy(self, args: TrainingArguments) -> float:
        """Accuracy on the sample, in the precision of the training. Raises Stopped at a request to stop."""
        network = self._averaged.eval()
        dtype = torch.bfloat16 if args.bf16 else torch.float16
        correct = count = 0
        with torch.no_grad(), torch.autocast(args.device.type, dtype, enabled=args.bf16 or args.fp16):
            for inputs, targets in self._sample.batches():
                signals.check()
                moved = {name: tensor.to(args.device) for name, tensor in inputs.items()}
                logits: Tensor = network(**moved).logits
                correct += int((logits.argmax(1).cpu() == targets).sum())
                count += len(targets)
        return correct / count
