"""A BEiT's layers in bf16 on a CPU with AMX: `amx.cpp`, compiled on this machine once for all models."""

import ctypes
import logging
import os
import platform
from collections.abc import Sequence
from ctypes import Structure, c_float, c_int, c_int64, c_void_p

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from beitcli.model.cpu.toolchain import compiled_library
from beitcli.model.network import Beit, Layer
from beitcli.model.runtime import Runtime, has_amx

log = logging.getLogger(__name__)

SOURCE = os.path.join(os.path.dirname(__file__), "amx.cpp")

_FLAGS = (
    *("-std=c++17", "-mamx-tile", "-mamx-bf16"),
    *("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512bf16"),
)

_HEAD, _TILE, _STEP, _BLOCK = 64, 16, 32, 32  # as in amx.cpp

_MASKED = -1e30
"""Position bias of the padding behind the last token."""


def has_amx_layers(runtime: Runtime) -> bool:
    """True if a compiled BEiT runs by these layers: in bf16, on a CPU with AMX, where Linux permits its use."""
    on_linux = (platform.system(), platform.machine()) == ("Linux", "x86_64")
    if (runtime.device, runtime.dtype) != ("cpu", "bf16") or not (on_linux and has_amx()):
        return False
    return bool(getattr(torch.cpu, "_init_amx", bool)())  # an old kernel or a sandbox may refuse them


def use_amx_layers(network: Beit) -> None:
    """Replace the network's layers by the compiled ones; if that is impossible, keep them and log a notice."""
    if not _fits(network):
        log.info("the network runs uncompiled: the layers for AMX need a BEiT with heads of %d and GELU", _HEAD)
        return
    try:
        library = compiled_library(SOURCE, _FLAGS, "the layers for AMX")
    except OSError as error:
        log.info("the network runs uncompiled: %s", error)
        return
    network.layers = nn.ModuleList([_AmxLayers(network, library)])


def _fits(network: Beit) -> bool:
    """True if every tensor that the compiled layers take by its address has the size that they expect."""
    first = next(iter(network.layers), None)
    if not isinstance(first, Layer):
        return False
    hidden, inner = first.heads * _HEAD, first.up.linear.out_features
    shapes = {
        **{f"{norm}.{part}": (hidden,) for norm in ("norm_before", "norm_after") for part in ("weight", "bias")},
        "qkv.weight": (3 * hidden, hidden),
        "qkv.bias": (3 * hidden,),
        "out.weight": (hidden, hidden),
        "out.bias": (hidden,),
        "up.linear.weight": (inner, hidden),
        "up.linear.bias": (inner,),
        "down.weight": (hidden, inner),
        "down.bias": (hidden,),
    }
    return (
        network.start.shape[-1] == network.projection.out_features == hidden
        and not inner % _STEP
        and all(getattr(layer.up, "activation", None) is F.gelu for layer in network.layers)
        and all(layer.get_parameter(name).shape == sides for layer in network.layers for name, sides in shapes.items())
    )


class _Linear(Structure):
    _fields_ = (("weight", c_void_p), ("bias", c_void_p), ("inputs", c_int64), ("outputs", c_int64))


class _Layer(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("before_weight", "before_bias", "after_weight", "after_bias")),
        *((name, _Linear) for name in ("qkv", "out", "up", "down")),
        *(("bias", c_void_p), ("bias_stride", c_int64)),
    )


class _Shape(Structure):
    _fields_ = (*((name, c_int64) for name in ("tokens", "hidden", "heads", "part")), ("epsilon", c_float))


class _AmxLayers(nn.Module):
    """All layers of a network: states of shape (n, tokens, hidden) in and out, of any dtype, float32 in between."""

    def __init__(self, network: Beit, library: ctypes.CDLL) -> None:
        super().__init__()
        self._run = library.beit_layers
        first = network.layers[0]
        assert isinstance(first, Layer)  # noqa: S101  # a Beit has no others
        hidden, inner = first.qkv.in_features, first.up.linear.out_features
        self._part = inner if inner % hidden else hidden
        self._shape = _Shape(network.tokens, hidden, first.heads, self._part, first.norm_before.eps)
        self._kept: list[Tensor] = []  # owners of the addresses below
        self._layers = (_Layer * len(network.layers))()
        for index in range(len(network.layers)):
            layer = network.layers[index]
            assert isinstance(layer, Layer)  # noqa: S101
            self._layers[index] = self._packed(layer)
            network.layers[index] = nn.Identity()  # frees the original weights

    def forward(self, x: Tensor) -> Tensor:
        states = x.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        count, threads = c_int64(len(self._layers)), c_int(torch.get_num_threads())
        shape, address = ctypes.byref(self._shape), c_void_p(states.data_ptr())
        if self._run(self._layers, count, shape, address, c_int64(len(states)), threads):
            raise torch.OutOfMemoryError("amx.cpp: can't allocate memory")
        return states.to(x.dtype)

    def _packed(self, layer: Layer) -> _Layer:
        norms = (layer.norm_before, layer.norm_after)
        hidden, heads = self._shape.hidden, self._shape.heads
        by_head = layer.qkv.weight.view(3, heads, _HEAD, hidden).transpose(0, 1).reshape(-1, hidden)
        qkv_bias = layer.qkv.bias.view(3, heads, _HEAD).transpose(0, 1).reshape(-1)
        return _Layer(
            *(self._address(part.float()) for norm in norms for part in (norm.weight, norm.bias)),
            self._linear([by_head], qkv_bias),
            self._linear([layer.out.weight], layer.out.bias),
            self._linear([layer.up.linear.weight], layer.up.linear.bias),
            self._linear(torch.split(layer.down.weight, self._part, dim=1), layer.down.bias),
            *self._positions(layer.bias),
        )

    def _linear(self, parts: Sequence[Tensor], bias: Tensor) -> _Linear:
        tiled = torch.stack(
            [  # (parts, blocks of outputs, steps of inputs, 2, pairs of inputs, outputs, 2)
                part.reshape(len(bias) // _BLOCK, 2, _TILE, -1, _STEP // 2, 2).permute(0, 3, 1, 4, 2, 5)
                for part in parts
            ]
        )
        inputs = sum(part.shape[1] for part in parts)
        return _Linear(self._address(tiled), self._address(bias.float()), inputs, len(bias))

    def _positions(self, bias: Tensor | None) -> tuple[int, int]:
        """Address of the position bias, its last side padded to a tile, and the stride from head to head."""
        tokens = self._shape.tokens
        each = torch.zeros(1, tokens, tokens, dtype=torch.bfloat16) if bias is None else bias[0]
        filled = F.pad(each, (0, -tokens % _TILE), value=_MASKED)
        return self._address(filled), 0 if bias is None else filled[0].numel()

    def _address(self, tensor: Tensor) -> int:
        self._kept.append(tensor.detach().contiguous())
        return self._kept[-1].data_ptr()
