"""What a network is before it learns: attention that begins as trained attention tends to end needs fewer pictures."""

import math

import torch
from torch import Tensor
from torch.nn import Parameter
from transformers import BeitForImageClassification
from transformers.models.beit.modeling_beit import BeitLayer

_NEIGHBOURS = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (-1, -1), (1, -1), (-1, 1))

_FAR = -8.0
"""The bias of what is not looked at: it weighs 1 / 3,000 of what is nearest."""

_NOISE, _REVERSED = 0.4, 0.4
"""The sizes of noise and identity: with the identity not reversed, a small model learnt more slowly."""


@torch.no_grad()
def look_around(network: BeitForImageClassification) -> None:
    """Has the heads look at one patch beside their own each, and the layers take away what they see.

    The position bias falls off with the squared distance from that patch, after ConViT (arXiv:2103.10697): the heads of
    all layers together begin as convolutions of 3 × 3 patches. The products of values and output projections are noise
    less a part of the identity, after mimetic initialisation (arXiv:2305.09828), whose part for queries and keys did
    harm here. Draws from torch's generator.
    """
    heads = network.config.num_attention_heads
    for number, layer in enumerate(network.beit.layers):
        columns = [_nearby(layer, _NEIGHBOURS[(number * heads + head) % 9]) for head in range(heads)]
        layer.relative_position_bias.relative_position_bias_table.copy_(torch.stack(columns, dim=1))
        _take_away(layer.attention.v_proj.weight, layer.attention.o_proj.weight)


def _nearby(layer: BeitLayer, centre: tuple[int, int]) -> Tensor:
    """A head's part of the table: all offsets of patches in rows, then three to do with the start token."""
    height, width = layer.relative_position_bias.window_size
    rows, columns = torch.arange(1 - height, height), torch.arange(1 - width, width)
    squares = (rows - centre[0])[:, None] ** 2 + (columns - centre[1]) ** 2
    return torch.cat(((-squares / 2).clamp(min=_FAR).flatten(), torch.full((3,), _FAR)))


def _take_away(values: Parameter, outputs: Parameter) -> None:
    """Two square matrices whose product is the wanted one, which both share alike."""
    width = len(values)
    product = _NOISE * torch.randn(width, width) / math.sqrt(width) - _REVERSED * torch.eye(width)
    left, sizes, right = torch.linalg.svd(product)
    outputs.copy_(left * sizes.sqrt())
    values.copy_(sizes.sqrt()[:, None] * right)
