"""Pixels -> batches to learn from, each decided by the seed and its own number alone."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Protocol

import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset, get_worker_info

from beitcli.inputs.worker import share
from beitcli.training.pixels import Pixels


class Augment(Protocol):
    """How a batch becomes what the network learns from; `progress` is the share of the training that is over."""

    def __call__(self, pixels: Tensor, targets: Tensor, progress: float, generator: Generator) -> dict[str, Any]:
        """uint8 pixels (n, h, w, 3) and class numbers to the network's inputs, with the wanted shares as `targets`."""
        ...


@dataclass(frozen=True, slots=True)
class Order:
    """Which of `count` examples are in which batch: `epochs` orders of all of them, one behind the other.

    A batch may end one of them and begin the next, and the last batch is filled from one more: all have one size.
    """

    count: int
    batch_size: int
    epochs: int
    seed: int

    @property
    def size(self) -> int:
        """How many examples a batch has."""
        return min(self.batch_size, self.count)

    def __len__(self) -> int:
        return ceil(self.count * self.epochs / self.size)

    def of(self, batch: int) -> Tensor:
        """The numbers of the examples in this batch."""
        epoch, place = divmod(batch * self.size, self.count)
        chosen = self._epoch(epoch)[place : place + self.size]
        return torch.cat((chosen, self._epoch(epoch + 1)[: self.size - len(chosen)]))

    def _epoch(self, number: int) -> Tensor:
        return torch.randperm(self.count, generator=seeded(self.seed, "epoch", number))


@dataclass(frozen=True)
class Batches(Dataset[dict[str, Any]]):
    """All batches of a training, each with the seed of what else is random in its step."""

    pixels: Pixels
    targets: Tensor
    augment: Augment
    order: Order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, number: int) -> dict[str, Any]:
        chosen = self.order.of(number)
        generator = seeded(self.order.seed, "batch", number)
        batch = self.augment(self.pixels[chosen.tolist()], self.targets[chosen], number / len(self), generator)
        return {**batch, "seed": int(torch.randint(2**62, (), generator=generator))}


def seeded(*facts: object) -> Generator:
    """A generator of random numbers that these facts decide, the same on every machine."""
    digest = hashlib.sha256(repr(facts).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def only(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The one item of a list, shared: what a DataLoader is told to make of a batch that is one already."""
    (item,) = items
    if get_worker_info() is not None:
        for tensor in filter(torch.is_tensor, item.values()):
            share(tensor)
    return item
