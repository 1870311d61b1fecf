"""Initial weights: attention that starts close to trained attention needs fewer images."""

import math

import torch
from torch import Tensor
from torch.nn import Parameter
from transformers import BeitPreTrainedModel
from transformers.models.beit.modeling_beit import BeitLayer

_NEIGHBOURS = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (-1, -1), (1, -1), (-1, 1))

_FAR = -8.0
"""Position bias of distant patches: 1 / 3,000 of the weight of the nearest."""

_NOISE, _IDENTITY = 0.4, 0.4
"""Scales of noise and of the negated identity: with a positive identity, a small model trained more slowly."""


@torch.no_grad()
def init_attention(network: BeitPreTrainedModel) -> None:
    """Initialise the position biases after ConViT, the value and output projections by mimetic initialisation.

    Each head attends to one of the nine nearest patches: its bias falls off with the squared distance from that patch,
    so that the heads of all layers together start as 3 × 3 convolutions (arXiv:2103.10697). Mimetic initialisation
    (arXiv:2305.09828) of queries and keys was harmful here. Draws from torch's generator.
    """
    heads = network.config.num_attention_heads
    for number, layer in enumerate(network.beit.layers):
        columns = [_bias_column(layer, _NEIGHBOURS[(number * heads + head) % 9]) for head in range(heads)]
        layer.relative_position_bias.relative_position_bias_table.copy_(torch.stack(columns, dim=1))
        init_value_projection(layer.attention.v_proj.weight, layer.attention.o_proj.weight)


def _bias_column(layer: BeitLayer, centre: tuple[int, int]) -> Tensor:
    """A head's column of the bias table: all patch offsets row by row, then three entries for the start token."""
    height, width = layer.relative_position_bias.window_size
    rows, columns = torch.arange(1 - height, height), torch.arange(1 - width, width)
    distances = (rows - centre[0])[:, None] ** 2 + (columns - centre[1]) ** 2
    return torch.cat(((-distances / 2).clamp(min=_FAR).flatten(), torch.full((3,), _FAR)))


def init_value_projection(values: Parameter, outputs: Parameter) -> None:
    """Initialise values and output projection so that their product is noise minus a part of the identity.

    Both get the square roots of the product's singular values.
    """
    width = len(values)
    product = _NOISE * torch.randn(width, width) / math.sqrt(width) - _IDENTITY * torch.eye(width)
    left, singular, right = torch.linalg.svd(product)
    outputs.copy_(left * singular.sqrt())
    values.copy_(singular.sqrt()[:, None] * right)
