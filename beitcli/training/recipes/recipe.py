"""Interface of a training recipe: options -> network, optimizer, schedule."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from torch import nn
from torch.optim import Optimizer
from transformers import BeitPreTrainedModel

from beitcli.model.preprocessing import Preprocessing
from beitcli.model.runtime import Runtime
from beitcli.training.data.batches import Augment


@dataclass(frozen=True, slots=True)
class Schedule:
    """Learning rate schedule (linear warm-up, then a cosine), gradient clipping and weight averaging.

    The cosine ends at `final_share` of the peak rate.
    """

    warmup_steps: int
    clip: float
    average_decay: float
    accumulate: int
    final_share: float = 0.0


Inputs: TypeAlias = dict[str, Any]
"""Inputs of a network, and their `targets`: classes, or a distribution over them, for each row of its logits."""


def _given(inputs: Inputs) -> Inputs:
    return inputs


@dataclass(frozen=True, slots=True)
class Method:
    """A network with optimizer, augmentation and schedule; `description` is its paragraph in the model card.

    `head` is the layer whose outputs are the logits. `with_targets` adds the targets to the inputs, on the network's
    device, where a batch does not bring them.
    """

    network: BeitPreTrainedModel
    head: nn.Linear
    optimizer: Optimizer
    augment: Augment
    schedule: Schedule
    description: str
    with_targets: Callable[[Inputs], Inputs] = _given


@dataclass(frozen=True, slots=True)
class Length:
    """Length of a training: `steps` of `step_size` examples each."""

    steps: int
    step_size: int


class Plan(Protocol):
    """Options of a training, of labelled images or others."""

    @property
    def seed(self) -> int: ...

    @property
    def epochs(self) -> int: ...

    @property
    def batch_size(self) -> int: ...

    @property
    def accumulate(self) -> int:
        """The number of batches in a step."""
        ...

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of the finished model."""
        ...

    @property
    def training_preprocessing(self) -> Preprocessing:
        """The preprocessing of the training images, whose result is augmented."""
        ...

    def settings(self) -> Mapping[str, Any]:
        """All settings that determine the result, by the names that the user knows."""
        ...


class LabelledPlan(Plan, Protocol):
    """Options of a training for classes."""

    def method(self, classes: tuple[str, ...], runtime: Runtime, length: Length) -> Method:
        """The network for these classes on the runtime's device, and its training for this length."""
        ...
