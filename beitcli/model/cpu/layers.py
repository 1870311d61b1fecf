"""A BEiT's layers on a CPU with AMX or AVX512: `layers.cpp`, compiled once for all models."""

import ctypes
import logging
import os
import platform
from ctypes import Structure, c_bool, c_float, c_int, c_int64, c_void_p
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from beitcli.model.cpu.heap import RETURNED_AFTER, return_freed_memory
from beitcli.model.cpu.int8 import Int8Linear
from beitcli.model.cpu.large_pages import LargePages, room_for
from beitcli.model.cpu.linear_maps import is_regular, linear_maps, plain_layer
from beitcli.model.cpu.toolchain import compiled_library
from beitcli.model.network import Beit, Layer
from beitcli.model.runtime import INT8, Runtime, has_amx, has_avx512

log = logging.getLogger(__name__)

SOURCE = os.path.join(os.path.dirname(__file__), "layers.cpp")

_FLAGS = ("-std=c++17", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512bf16")

_WITHOUT_BF16 = "AVX512 without bf16"

_FLAGS_OF = {
    "AMX": ("-DAMX", "-mamx-tile", "-mamx-bf16", "-mamx-int8"),
    "AVX512": ("-mavx512vnni",),
    _WITHOUT_BF16: ("-mavx512vnni", "-DFLOATS"),
}
"""Flags by the instructions that multiply matrices."""

_DTYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.int8: INT8}
"""Our names of the weights' dtypes."""

_HEAD, _TILE = 64, 16  # as in rows.h

_STEP = {torch.float32: 32, torch.bfloat16: 32, torch.int8: 64}
"""Numbers of which the inner layer's width is a multiple: a tile's columns, and a block's 32."""

_MASKED = -1e30
"""Position bias of the padding behind the last token."""


def instructions_for(runtime: Runtime) -> str | None:
    """This CPU's instructions, AMX or AVX512, by which a compiled BEiT can run these layers in the dtype, if any."""
    on_linux = (platform.system(), platform.machine()) == ("Linux", "x86_64")
    if runtime.device != "cpu" or not on_linux:
        return None
    if runtime.dtype == "fp32":
        return "AVX512" if has_avx512() else None  # the library's code for floats needs no more
    if runtime.dtype not in ("bf16", INT8):
        return None
    if has_amx() and getattr(torch.cpu, "_init_amx", bool)():  # an old kernel or a sandbox may refuse its use
        return "AMX"
    if has_avx512("bf16", "vnni"):
        return "AVX512"
    return _WITHOUT_BF16 if runtime.dtype == INT8 and has_avx512("vnni") else None


def fits_layers(network: Beit) -> bool:
    """True if the compiled layers can take the place of the network's: with heads of 64 and GELU, in sizes of tiles."""
    layers = [plain_layer(layer) for layer in network.layers]
    if not layers or network.output == "layers":  # the compiled ones are one module
        return False
    hidden, up = layers[0].heads * _HEAD, linear_maps(layers[0])[2]
    return (
        network.start.shape[-1] == network.projection.out_features == hidden
        and not up.out_features % _STEP[up.weight.dtype]
        and all(
            is_regular(layer) and [each.out_features for each in linear_maps(layer)[1:3]] == [hidden, up.out_features]
            for layer in layers
        )
    )


def use_layers(network: Beit, instructions: str) -> None:
    """Replace the network's layers by the compiled ones; if that is impossible, keep them and log a notice."""
    try:
        library = layers_library(instructions)
    except OSError as error:
        log.info("the network runs uncompiled: %s", error)
        return
    weights = linear_maps(plain_layer(network.layers[0]))[0].weight.dtype
    is_exact = weights == torch.float32 or instructions == _WITHOUT_BF16
    packed = _packed(network, library, torch.float32 if is_exact else torch.bfloat16)
    network.layers = nn.ModuleList([CompiledLayers(*packed, library)])


def layers_library(instructions: str) -> ctypes.CDLL:
    """The compiled code. Raises OSError where it can neither be compiled nor loaded."""
    return compiled_library(SOURCE, (*_FLAGS, *_FLAGS_OF[instructions]), f"the layers for {instructions}")


class _Shape(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("tokens", "hidden", "inner", "heads", "part", "bias_stride", "averages")),
        ("epsilon", c_float),
    )


@dataclass(frozen=True)
class Arrangement:
    """The places of all layers' tensors in their memory, layer by layer, and what else the code needs to know."""

    dtype: str
    layers: int
    shape: tuple[float, ...]
    places: tuple[int, ...]


class CompiledLayers(nn.Module):
    """All layers of a network: states of shape (n, tokens, hidden) in and out, of any dtype, float32 in between.

    Where the last layer averages, (n, hidden) come out.
    """

    def __init__(self, arrangement: Arrangement, memory: LargePages, library: ctypes.CDLL) -> None:
        super().__init__()
        self.arrangement, self.memory = arrangement, memory
        *sizes, epsilon = arrangement.shape
        self._shape = _Shape(*map(int, sizes), epsilon)
        self._run = getattr(library, f"beit_layers_{arrangement.dtype}")
        self._run.restype = c_bool
        start = memory.bytes.data_ptr()
        self._addresses = (c_void_p * len(arrangement.places))(*(start + place for place in arrangement.places))

    def forward(self, x: Tensor) -> Tensor:
        states = x.to(torch.float32, memory_format=torch.contiguous_format)
        result = torch.empty_like(states[:, 0] if self._shape.averages else states)
        where = (c_void_p(each.data_ptr()) for each in (states, result))
        count, images = c_int64(self.arrangement.layers), c_int64(len(states))
        threads = c_int(torch.get_num_threads())
        if not self._run(self._addresses, count, ctypes.byref(self._shape), *where, images, threads):
            raise torch.OutOfMemoryError("layers.cpp: can't allocate memory")
        return result.to(x.dtype)


def _packed(network: Beit, library: ctypes.CDLL, positions: torch.dtype) -> tuple[Arrangement, LargePages]:
    """The network's layers as the compiled ones take them, position biases in a dtype; the network's own are gone."""
    layers, first = network.layers, plain_layer(network.layers[0])
    qkv, _, up, _ = linear_maps(first)
    hidden, inner, tokens = qkv.in_features, up.out_features, network.tokens
    part = inner if inner % hidden else hidden
    stride = 0 if first.bias is None else tokens * (tokens + -tokens % _TILE)
    averages = plain_layer(layers[-1]).averages
    shape = (tokens, hidden, inner, first.heads, part, stride, averages, first.norm_before.eps)
    sizes = [room_for(tensor) for tensor, _ in _tensors(first, tokens, inner // part, positions)]
    memory = LargePages(len(layers) * sum(sizes))
    for index in range(len(layers)):
        for tensor, parts in _tensors(plain_layer(layers[index]), tokens, inner // part, positions):
            kept = memory.empty_like(tensor)
            if parts:
                _pack(library, tensor, parts, kept)
            else:
                kept.copy_(tensor)
        layers[index] = nn.Identity()  # frees the original weights
        if (index + 1) % RETURNED_AFTER == 0:
            return_freed_memory()
    places = tuple(accumulate(sizes * len(layers), initial=0))[:-1]
    return Arrangement(_DTYPES[qkv.weight.dtype], len(layers), shape, places), memory


def _tensors(layer: Layer, tokens: int, parts: int, positions: torch.dtype) -> list[tuple[Tensor, int]]:
    """The tensors of the compiled layer, in the order of its fields; with weights the parts of their inputs."""
    norms = (layer.norm_before, layer.norm_after)
    qkv, out, up, down = linear_maps(layer)
    return [
        *((part.float(), 0) for norm in norms for part in (norm.weight, norm.bias)),
        *((_by_head(tensor), number) for tensor, number in _tensors_of(qkv, 1)),
        *_tensors_of(out, 1),
        *_tensors_of(up, 1),
        *_tensors_of(down, parts),
        (_positions(layer.bias, tokens).to(positions), 0),
    ]


def _positions(bias: Tensor | None, tokens: int) -> Tensor:
    """The position bias, its last side padded to a tile; without one, that of no head."""
    each = torch.zeros(1, tokens, tokens) if bias is None else bias[0]
    return F.pad(each, (0, -tokens % _TILE), value=_MASKED)


def _tensors_of(linear: nn.Linear | Int8Linear, parts: int) -> list[tuple[Tensor, int]]:
    """The weights of a map, (outputs, inputs), with their number of parts; scales and biases in float32."""
    if isinstance(linear, Int8Linear):
        starts = _sums_of_parts(linear.weight, parts) * -128
        return [(linear.weight.t(), parts), (linear.scale, 0), (linear.bias, 0), (starts, 0)]
    bias = linear.bias.float()
    return [(linear.weight, parts), (bias, 0), (bias, 0), (bias, 0)]  # floats have no scales and starts: none are read


def _sums_of_parts(weight: Tensor, parts: int) -> Tensor:
    """The sums over each part of the inputs of a weight, (inputs, outputs): (parts * outputs)."""
    return weight.reshape(parts, -1, weight.shape[1]).sum(1, dtype=torch.int32).flatten()


def _by_head(outputs: Tensor) -> Tensor:
    """All queries, keys and values, (3 * hidden, ...): those of the first head, of the second, and so on."""
    return outputs.view(3, -1, _HEAD, *outputs.shape[1:]).transpose(0, 1).reshape(outputs.shape)


def _pack(library: ctypes.CDLL, weight: Tensor, parts: int, to: Tensor) -> None:
    """Write a weight in tiles, its inputs in parts."""
    words = weight.contiguous().view(torch.int32)
    outputs, inputs = words.shape
    sizes = (c_int64(outputs), c_int64(inputs), c_int64(parts))
    library.beit_pack(c_void_p(words.data_ptr()), *sizes, c_void_p(to.data_ptr()), c_int(torch.get_num_threads()))
