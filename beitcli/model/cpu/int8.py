"""A BEiT's layers with linear maps of 8 bits, for CPUs: whole numbers are multiplied at twice the rate of bf16 or fp32.

Weights are quantized once for each output, activations anew for each row, both symmetrically, and products are summed
in 32 bits. So a row's result depends on no other row. All else stays in float32, but attention (and in a
network the patch projection) is in bf16 on a CPU that is faster in it.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cache

import torch
from torch import Tensor, nn

from beitcli.model.cpu.heap import RETURNED_AFTER, return_freed_memory
from beitcli.model.network import Layer
from beitcli.model.runtime import is_faster_in_bf16

_LARGEST = 127

_LARGEST_OF_SEVEN_BITS = 64
"""Largest weight where two products are summed in 16 bits: twice 255 times 64 has room there."""

_ROWS_AT_ONCE = 400
"""Rows that go through a layer together: with more, what lies between two products leaves the cores' caches."""


def quantized_layers(layers: Iterable[Layer]) -> Iterator["QuantizedLayer"]:
    """The layers with linear maps of 8 bits, one after the other; the memory of the given ones is returned."""
    for count, layer in enumerate(layers, start=1):
        yield _quantized_layer(layer)
        if count % RETURNED_AFTER == 0:
            return_freed_memory()


def _quantized_layer(layer: Layer) -> "QuantizedLayer":
    """The layer with linear maps of 8 bits; theirs in the given layer are gone."""
    dtype = torch.bfloat16 if is_faster_in_bf16() else torch.float32
    layer.qkv = Int8Linear(layer.qkv, dtype=dtype)  # type: ignore[assignment]
    layer.out = Int8Linear(layer.out)  # type: ignore[assignment]
    layer.down = Int8Linear(layer.down)  # type: ignore[assignment]
    layer.up = Int8Linear(layer.up.linear, layer.up.activation)  # type: ignore[assignment]
    if layer.bias is not None:
        bias = layer.bias.detach().to(dtype)
        del layer.bias
        layer.bias = bias  # no parameter: conversions of the network leave it as it is
    return QuantizedLayer(layer)


class Int8Linear(nn.Module):
    """A linear map, and its activation if there is one: rows of any floating dtype to rows of `dtype`."""

    def __init__(
        self,
        linear: nn.Linear,
        activation: Callable[[Tensor], Tensor] = lambda y: y,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.dtype = dtype
        largest = _LARGEST if sums_exactly() else _LARGEST_OF_SEVEN_BITS
        quantized, scale = _quantized(linear.weight.detach().float(), largest)
        self.out_features, self.in_features = quantized.shape
        # no parameters: conversions of the network leave them as they are
        self.weight = quantized.t()
        self.scale = scale.flatten()
        self.bias = linear.bias.detach().float()

    def forward(self, x: Tensor) -> Tensor:
        quantized, scale = _quantized(x.flatten(0, -2).float(), _LARGEST)
        y = torch._int_mm(quantized, self.weight).float().mul_(self.scale)
        torch.addcmul(self.bias, y, scale, out=y)  # no further array: these are the largest
        return self.activation(y).to(self.dtype).reshape(*x.shape[:-1], self.out_features)


@cache
def sums_exactly() -> bool:
    """True if this CPU sums products of any 8 bits exactly; one without VNNI's instructions does so in 16 bits."""
    row = torch.full((16, 64), _LARGEST, dtype=torch.int8)
    return bool((torch._int_mm(row, row.t()) == 64 * _LARGEST**2).all())


def _quantized(rows: Tensor, largest: int) -> tuple[Tensor, Tensor]:
    """Rows as whole numbers up to the largest, and the factor in float32 that gives each row back.

    A row that is not finite has a factor that is not, so that its results are not either.
    """
    scale = rows.abs().amax(-1, keepdim=True).clamp_min_(torch.finfo(torch.float32).tiny) / largest
    return (rows / scale).round_().to(torch.int8), scale


class QuantizedLayer(nn.Module):
    """A layer with linear maps of 8 bits, which takes a few images of a batch at a time."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        images = max(1, round(_ROWS_AT_ONCE / x.shape[1]))
        return torch.cat([self.layer(part) for part in torch.split(x, images)])
