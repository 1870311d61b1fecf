"""Linear layers whose weights are laid out once for the CPU's matrix instructions, instead of in every call."""

import platform

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from beitcli.model.network import ActivatedLinear
from beitcli.model.runtime import has_amx


def can_pack(dtype: torch.dtype) -> bool:
    """Whether this build of torch has oneDNN's packed linear layers, and this CPU native instructions for the dtype."""
    if platform.machine() not in ("x86_64", "AMD64") or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def pack_linear_layers(network: nn.Module, rows: int) -> None:
    """Packs every linear layer in the network, best for inputs of so many rows; the weights of before are dropped."""
    for name, child in network.named_children():
        if isinstance(child, nn.Linear):
            setattr(network, name, _PackedLinear(child, rows))
        elif isinstance(child, ActivatedLinear) and _can_fuse(child):
            setattr(network, name, _PackedLinear(child.linear, rows, "gelu"))
        else:
            pack_linear_layers(child, rows)


def _can_fuse(layer: ActivatedLinear) -> bool:
    """Whether GELU costs less in the linear layer's own pass: in bf16 it does, except beside AMX's faster products."""
    return layer.activation is F.gelu and layer.linear.weight.dtype == torch.bfloat16 and not has_amx()


class _PackedLinear(nn.Module):
    """A linear layer as oneDNN wants it, with what it computes behind; torch's own compiler does no other."""

    def __init__(self, linear: nn.Linear, rows: int, behind: str = "none") -> None:
        super().__init__()
        self._behind = behind
        self.out_features = linear.out_features
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.data, rows)
        self._bias = linear.bias.data

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, self._behind, [], "none")
        return y
