"""Augmented pixels -> masked batches, and the visual tokens of their masked patches."""

from dataclasses import dataclass
from random import Random

import torch
from torch import Generator, Tensor

from beitcli.model.preprocessing import Preprocessing
from beitcli.training.pretraining.masks import Masking
from beitcli.training.pretraining.tokenizers.protocol import Tokenizer
from beitcli.training.pretraining.views import Views
from beitcli.training.recipes.recipe import Inputs

VIEWS = "views"
"""Input that the tokenizer sees, and the network does not."""


@dataclass(frozen=True, slots=True)
class MaskedAugment:
    """Two views of every image and a mask, drawn from the batch's generator."""

    views: Views
    masking: Masking
    preprocessing: Preprocessing

    def __call__(self, pixels: Tensor, targets: Tensor, progress: float, generator: Generator) -> Inputs:  # noqa: ARG002
        images, token_views = self.views(pixels, generator)
        preprocessing = self.preprocessing
        mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
        normalised = (images * (255 * preprocessing.factor) - mean) / std
        seed = int(torch.randint(2**62, (), generator=generator))
        return {
            "pixel_values": normalised.permute(0, 3, 1, 2).contiguous(),
            VIEWS: token_views.permute(0, 3, 1, 2).contiguous(),
            "mask": self.masking.batch(len(pixels), Random(seed)),  # noqa: S311  # nothing secret
        }


def with_tokens(inputs: Inputs, tokenizer: Tokenizer) -> Inputs:
    """The inputs of the network, and as targets the tokens of the masked patches, in full precision."""
    inputs = dict(inputs)
    views: Tensor = inputs.pop(VIEWS)
    with torch.no_grad(), torch.autocast(views.device.type, enabled=False):
        tokens = tokenizer(views)
    return {**inputs, "targets": tokens[inputs["mask"]]}
