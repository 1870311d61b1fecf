"""Linear layers whose weights are laid out once for the CPU's matrix instructions, instead of in every call."""

import platform

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from beitcli.model.network import ActivatedLinear
from beitcli.model.runtime import has_amx


def can_pack(dtype: torch.dtype) -> bool:
    """True if this build of torch has oneDNN's packed linear layers, and this CPU instructions for the dtype."""
    if platform.machine() not in ("x86_64", "AMD64") or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def pack_linear_layers(network: nn.Module, rows: int) -> None:
    """Pack every linear layer of the network, best for inputs of `rows` rows; the original weights are freed."""
    for name, child in network.named_children():
        if isinstance(child, nn.Linear):
            setattr(network, name, _PackedLinear(child, rows))
        elif isinstance(child, ActivatedLinear) and _can_fuse(child):
            setattr(network, name, _PackedLinear(child.linear, rows, "gelu"))
        else:
            pack_linear_layers(child, rows)


def _can_fuse(layer: ActivatedLinear) -> bool:
    """True if fusing GELU into the linear layer is faster: in bf16 it is, except with AMX's faster products."""
    return layer.activation is F.gelu and layer.linear.weight.dtype == torch.bfloat16 and not has_amx()


class _PackedLinear(nn.Module):
    """A linear layer in oneDNN's layout with a fused activation, as torch's own compiler makes it."""

    def __init__(self, linear: nn.Linear, rows: int, activation: str = "none") -> None:
        super().__init__()
        self._activation = activation
        self.out_features = linear.out_features
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.data, rows)
        self._bias = linear.bias.data

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, self._activation, [], "none")
        return y
