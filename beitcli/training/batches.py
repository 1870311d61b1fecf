"""Pixels -> batches to learn from, each decided by the seed and its own number alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset

from beitcli.training.pixels import Pixels


class Augment(Protocol):
    """How a batch becomes what the network learns from; `progress` is the share of the training that is over."""

    def __call__(self, pixels: Tensor, targets: Tensor, progress: float, generator: Generator) -> dict[str, Any]:
        """uint8 pixels (n, h, w, 3) and class numbers to the network's inputs, with the wanted shares as `targets`."""
        ...


@dataclass(frozen=True)
class Batches(Dataset[dict[str, Any]]):
    """All batches of a training, `epochs` orders of the examples one after the other.

    Where the examples do not fill the last batch of an epoch, those left over wait for another epoch.
    """

    pixels: Pixels
    targets: Tensor
    augment: Augment
    batch_size: int
    epochs: int
    seed: int

    @property
    def in_epoch(self) -> int:
        return max(1, len(self.targets) // self.batch_size)

    def __len__(self) -> int:
        return self.in_epoch * self.epochs

    def __getitem__(self, number: int) -> dict[str, Any]:
        epoch, place = divmod(number, self.in_epoch)
        order = torch.randperm(len(self.targets), generator=seeded(self.seed, "epoch", epoch))
        chosen = order[place * self.batch_size : (place + 1) * self.batch_size]
        generator = seeded(self.seed, "batch", number)
        batch = self.augment(
            self.pixels[chosen.tolist()], self.targets[chosen], number / len(self), generator
        )
        return {**batch, "seed": int(torch.randint(2**62, (), generator=generator))}


def seeded(*facts: object) -> Generator:
    """A generator of random numbers that these facts decide, the same on every machine."""
    import hashlib

    digest = hashlib.sha256(repr(facts).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def only(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The one item of a list: what a DataLoader is told to make of a batch that is one already."""
    (item,) = items
    return item
