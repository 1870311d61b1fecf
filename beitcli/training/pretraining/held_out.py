"""Held-out images under fixed masks: how well a network predicts their tokens, beside what needs no network."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from beitcli import signals
from beitcli.training.data.batches import seeded
from beitcli.training.data.pixels import Pixels
from beitcli.training.pretraining.masked_batches import VIEWS, MaskedAugment, with_tokens
from beitcli.training.pretraining.tokenizers.protocol import Tokenizer
from beitcli.training.recipes.recipe import Inputs

MAX_HELD_OUT = 1000
"""Most images that are held out: the loss on their masked patches is known to a hundredth."""

_BATCH_SIZE = 64


@dataclass(frozen=True, slots=True)
class HeldOutScores:
    """Loss in nats and accuracy on masked patches, beside those of guesses that see no image.

    `entropy` is that of the tokens' frequencies, the best loss of a constant prediction; `most_frequent` is the
    accuracy of always predicting the most frequent token. `used` tokens of the vocabulary occur.
    """

    loss: float
    accuracy: float
    entropy: float
    most_frequent: float
    used: int


class HeldOut:
    """The sample for validation on the way, and for the scores of the saved network.

    `augment` draws the masks by `seed`, and the tokenizer is on the device.
    """

    def __init__(self, pixels: Pixels, augment: MaskedAugment, tokenizer: Tokenizer, device: str, seed: int) -> None:
        self._pixels, self._augment, self._tokenizer = pixels, augment, tokenizer
        self._device, self._seed = device, seed
        self._targets: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self._pixels)

    def batches(self) -> Iterator[tuple[Inputs, Tensor]]:
        """Inputs of the network, and the tokens of the masked patches; the same each time."""
        for start in range(0, len(self), _BATCH_SIZE):
            pixels = self._pixels[range(start, min(len(self), start + _BATCH_SIZE))]
            generator = seeded(self._seed, "held out", start)
            inputs = self._augment(pixels, torch.empty(0), 0.0, generator)
            if start in self._targets:
                del inputs[VIEWS]
                yield inputs, self._targets[start]
                continue
            moved = {name: tensor.to(self._device) for name, tensor in inputs.items()}
            targeted = with_tokens(moved, self._tokenizer)
            self._targets[start] = targeted.pop("targets").cpu()
            yield targeted, self._targets[start]

    @torch.no_grad()
    def scores(self, network: nn.Module) -> HeldOutScores:
        """The scores of the network in float32 on the device. Raises Stopped at a request to stop."""
        network = network.eval().to(self._device)
        loss = correct = 0.0
        counts = torch.zeros(self._tokenizer.vocabulary, dtype=torch.long)
        for inputs, targets in self.batches():
            signals.check()
            moved = {name: tensor.to(self._device) for name, tensor in inputs.items()}
            logits = cast(Tensor, network(**moved).logits).float().cpu()
            loss += float(F.cross_entropy(logits, targets, reduction="sum"))
            correct += int((logits.argmax(1) == targets).sum())
            counts += torch.bincount(targets, minlength=len(counts))
        shares = counts.double() / counts.sum()
        total = int(counts.sum())
        return HeldOutScores(
            loss=loss / total,
            accuracy=correct / total,
            entropy=float(-torch.special.xlogy(shares, shares).sum()),
            most_frequent=float(shares.max()),
            used=int((counts > 0).sum()),
        )
