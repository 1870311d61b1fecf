"""The linear maps of a layer, in float or of 8 bits, and whether their sizes are those that compiled code expects."""

from typing import cast

from torch import nn
from torch.nn import functional as F

from beitcli.model.cpu.int8 import Int8Linear, QuantizedLayer
from beitcli.model.network import ActivatedLinear, Layer


def plain_layer(layer: nn.Module) -> Layer:
    """The layer itself, or the one that holds a quantized layer's maps."""
    return cast(Layer, layer.layer if isinstance(layer, QuantizedLayer) else layer)


def linear_maps(layer: Layer) -> list[nn.Linear | Int8Linear]:
    """To queries, keys and values; out of attention; up to the inner layer; down from it."""
    up = layer.up.linear if isinstance(layer.up, ActivatedLinear) else cast(Int8Linear, layer.up)
    return [layer.qkv, layer.out, up, layer.down]


def is_regular(layer: Layer) -> bool:
    """True if the activation is GELU, and every tensor has the size that those of the norm and the inner layer require.

    Compiled code takes tensors by their addresses alone.
    """
    maps, norms = linear_maps(layer), (layer.norm_before, layer.norm_after)
    hidden, inner = layer.norm_before.weight.numel(), maps[2].out_features
    sides = [(hidden, 3 * hidden), (hidden, hidden), (hidden, inner), (inner, hidden)]
    return (
        getattr(layer.up, "activation", None) is F.gelu
        and not hidden % layer.heads
        and [(each.in_features, each.out_features) for each in maps] == sides
        and all(each.bias.shape == (each.out_features,) for each in maps)
        and all(part.shape == (hidden,) for norm in norms for part in (norm.weight, norm.bias))
    )
