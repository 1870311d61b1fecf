"""What the ways of training have in common: each is a plan that becomes a method once the pictures are read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch.optim import Optimizer
from transformers import BeitForImageClassification

from beitcli.model.recipe import Recipe
from beitcli.model.runtime import Runtime
from beitcli.training.batches import Augment


@dataclass(frozen=True, slots=True)
class Schedule:
    """How the rates go: up for so many steps, then down along a cosine; gradients are clipped, weights averaged."""

    warmup_steps: int
    clip: float
    average_decay: float
    accumulate: int


@dataclass(frozen=True, slots=True)
class Method:
    """A network and how it learns; `text` is its paragraph in the model card."""

    network: BeitForImageClassification
    optimiser: Optimizer
    augment: Augment
    schedule: Schedule
    text: str


@dataclass(frozen=True, slots=True)
class Length:
    """So many steps, of so many examples each."""

    steps: int
    step_size: int


class Plan(Protocol):
    """What a training is asked for."""

    @property
    def seed(self) -> int: ...

    @property
    def epochs(self) -> int: ...

    @property
    def batch_size(self) -> int: ...

    @property
    def accumulate(self) -> int:
        """How many batches make a step."""
        ...

    @property
    def recipe(self) -> Recipe:
        """How the finished model wants its pictures."""
        ...

    @property
    def learning_recipe(self) -> Recipe:
        """The pixels that are kept to learn from: the augmentation takes what it wants from them."""
        ...

    def settings(self) -> Mapping[str, Any]:
        """All that decides the result, by the names that the user knows it by."""
        ...

    def method(self, classes: tuple[str, ...], runtime: Runtime, length: Length) -> Method:
        """The network for these classes on the runtime's device, and how it learns in that time."""
        ...
