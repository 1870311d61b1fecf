"""Pixels -> training batches, each determined by the seed and its own number alone."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Protocol

import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset, get_worker_info

from beitcli.inputs.worker import share
from beitcli.training.data.pixels import Pixels


class Augment(Protocol):
    """Augmentation of a batch; `progress` is the share of the training that is over."""

    def __call__(self, pixels: Tensor, targets: Tensor, progress: float, generator: Generator) -> dict[str, Any]:
        """uint8 pixels (n, h, w, 3) and class numbers -> the network's inputs, with soft `targets`."""
        ...


@dataclass(frozen=True, slots=True)
class Order:
    """Assignment of `count` examples to batches: one permutation for each epoch, concatenated.

    A batch may span two epochs, and the last batch is filled from one more epoch: all have one size.
    """

    count: int
    batch_size: int
    epochs: int
    seed: int

    @property
    def size(self) -> int:
        """The number of examples in a batch."""
        return min(self.batch_size, self.count)

    def __len__(self) -> int:
        return ceil(self.count * self.epochs / self.size)

    def of(self, batch: int) -> Tensor:
        """The numbers of the examples in a batch."""
        epoch, offset = divmod(batch * self.size, self.count)
        chosen = self._epoch(epoch)[offset : offset + self.size]
        return torch.cat((chosen, self._epoch(epoch + 1)[: self.size - len(chosen)]))

    def _epoch(self, number: int) -> Tensor:
        return torch.randperm(self.count, generator=seeded(self.seed, "epoch", number))


@dataclass(frozen=True)
class Batches(Dataset[dict[str, Any]]):
    """All batches of a training, each with a seed for the other random choices of its step."""

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

    def batch_bytes(self) -> int:
        """Bytes of a batch's tensors, by those of one image."""
        inputs = self.augment(self.pixels[[0]], self.targets[:1], 0.0, seeded(self.order.seed, "bytes"))
        return self.order.size * sum(value.nbytes for value in inputs.values() if torch.is_tensor(value))


def seeded(*keys: object) -> Generator:
    """A random generator seeded by a hash of the keys, the same on every machine."""
    digest = hashlib.sha256(repr(keys).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def collate_single(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The one item of a list, in shared memory: the DataLoader's `collate_fn` for items that are whole batches."""
    (item,) = items
    if get_worker_info() is not None:
        for tensor in filter(torch.is_tensor, item.values()):
            share(tensor)
    return item
