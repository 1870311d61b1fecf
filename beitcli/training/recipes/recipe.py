"""Interface of a training recipe: options -> network, optimizer, schedule."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch.optim import Optimizer
from transformers import BeitForImageClassification

from beitcli.model.preprocessing import Preprocessing
from beitcli.model.runtime import Runtime
from beitcli.training.data.batches import Augment


@dataclass(frozen=True, slots=True)
class Schedule:
    """Learning rate schedule (linear warm-up, then a cosine), gradient clipping and weight averaging."""

    warmup_steps: int
    clip: float
    average_decay: float
    accumulate: int


@dataclass(frozen=True, slots=True)
class Method:
    """A network with optimizer, augmentation and schedule; `description` is its paragraph in the model card."""

    network: BeitForImageClassification
    optimizer: Optimizer
    augment: Augment
    schedule: Schedule
    description: str


@dataclass(frozen=True, slots=True)
class Length:
    """Length of a training: `steps` of `step_size` examples each."""

    steps: int
    step_size: int


class Plan(Protocol):
    """Options of a training."""

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

    def method(self, classes: tuple[str, ...], runtime: Runtime, length: Length) -> Method:
        """The network for these classes on the runtime's device, and its training for this length."""
        ...
