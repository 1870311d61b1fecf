"""One pass between two products of a layer: `fused.cpp`, compiled on this machine once for all models."""

import logging
import os
from ctypes import Structure, byref, c_float, c_int64, c_void_p
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from beitcli.model.cpu.int8 import Int8Linear, QuantizedLayer
from beitcli.model.cpu.linear_maps import is_regular, linear_maps
from beitcli.model.cpu.toolchain import compiled_library
from beitcli.model.network import SCORES_AT_ONCE, Beit, Layer, mean_of_patches

log = logging.getLogger(__name__)

SOURCE = os.path.join(os.path.dirname(__file__), "fused.cpp")

_VECTORS = {
    "AVX2": ("-mavx2", "-mfma"),
    "AVX512": ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"),
}
"""Flags by torch's name of this CPU's instructions; for others the compiler has its own."""

_ROWS_AT_ONCE = 800
"""Rows that go through a layer together: with more, the sums between two products leave the cores' caches."""


def use_fused_passes(network: Beit) -> None:
    """Replace the network's layers of 8 bits by fused ones, and in others the softmax of bf16.

    What has no fused one stays as it is; if none can be compiled, all do, and a notice is logged.
    """
    try:
        passes = Passes()
    except OSError as error:
        log.info("the network runs uncompiled: %s", error)
        return
    for index, layer in enumerate(network.layers):
        if isinstance(layer, Layer):
            layer.softmax = passes.softmax
        elif isinstance(layer, QuantizedLayer) and is_regular(layer.layer):
            network.layers[index] = _FusedLayer(layer.layer, passes)


class _FusedLayer(nn.Module):
    """One layer: float32 states of shape (n, tokens, hidden) in and out, a few images of a batch at a time.

    Of a layer that averages (n, hidden) come out.
    """

    def __init__(self, layer: Layer, passes: "Passes") -> None:
        super().__init__()
        self._passes = passes
        self._heads, self._bias, self._averages = layer.heads, layer.bias, layer.averages
        self._before, self._after = _Norm(layer.norm_before), _Norm(layer.norm_after)
        self._qkv, self._out, self._up, self._down = cast(list[Int8Linear], linear_maps(layer))

    def forward(self, x: Tensor) -> Tensor:
        images, x = max(1, round(_ROWS_AT_ONCE / x.shape[1])), x.contiguous()
        result = torch.empty_like(x[:, 0] if self._averages else x)
        for part, to in zip(torch.split(x, images), torch.split(result, images), strict=True):
            self._compute(part, to)
        return result

    def _compute(self, x: Tensor, to: Tensor) -> None:
        run, (images, tokens, hidden) = self._passes, x.shape
        rows, y = Rows(images * tokens, hidden), torch.empty_like(x)
        run.normalise(x, self._before, rows)
        q, k, v = run.split(Sums(rows, self._qkv), images, self._heads, self._qkv.dtype)
        run.join(self._attended(q, k, v), rows)
        run.add(Sums(rows, self._out), x, y)
        run.normalise(y, self._after, rows)
        if self._averages:
            inner_mean = run.averaged(Sums(rows, self._up), images)
            torch.add(mean_of_patches(y), self._down(inner_mean), out=to)
        else:
            inner = Rows(images * tokens, self._up.out_features)
            run.activate(Sums(rows, self._up), inner)
            run.add(Sums(inner, self._down), y, to)

    def _attended(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention over (n, heads, tokens, width), in bf16 by as many images as fit into the caches."""
        if q.dtype == torch.float32:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=self._bias, scale=1.0).contiguous()
        attended = torch.empty_like(q)
        images = max(1, SCORES_AT_ONCE // (q.shape[1] * q.shape[2] ** 2))
        parts = (torch.split(each, images) for each in (q, k.transpose(2, 3), v, attended))
        for queries, keys, values, out in zip(*parts, strict=True):
            torch.matmul(self._passes.softmax(queries @ keys, self._bias), values, out=out)
        return attended


class Passes:
    """The compiled passes; each takes and gives the addresses of contiguous tensors, and runs on all torch's threads.

    Raises OSError where they cannot be compiled or loaded.
    """

    def __init__(self) -> None:
        flags = ("-std=gnu++17", "-fno-math-errno", "-fno-trapping-math")
        vectors = _VECTORS.get(torch.backends.cpu.get_cpu_capability(), ())
        self._library = compiled_library(SOURCE, (*flags, *vectors), "the layers for this CPU")

    def normalise(self, x: Tensor, norm: "_Norm", to: "Rows") -> None:
        """Write the layer norm of float32 rows."""
        self._library.beit_normalise(_at(x), byref(norm), byref(to), torch.get_num_threads())

    def split(self, qkv: "Sums", images: int, heads: int, dtype: torch.dtype) -> Tensor:
        """Queries, keys and values: (3, images, heads, tokens, width)."""
        shape = _Heads(images, qkv.rows // images, heads, qkv.width // 3 // heads)
        to = torch.empty((3, images, heads, shape.tokens, shape.width), dtype=dtype)
        run = self._library.beit_split_bf16 if dtype == torch.bfloat16 else self._library.beit_split_fp32
        run(byref(qkv), byref(shape), _at(to), torch.get_num_threads())
        return to

    def softmax(self, scores: Tensor, bias: Tensor | None) -> Tensor:
        """As `biased_softmax`, in bf16, in place."""
        images, heads, tokens, _ = scores.shape
        shape = _Heads(images, tokens, heads, 0)
        self._library.beit_softmax(
            _at(scores), None if bias is None else _at(bias), byref(shape), torch.get_num_threads()
        )
        return scores

    def join(self, attended: Tensor, to: "Rows") -> None:
        """Write attended values (images, heads, tokens, width) as rows."""
        images, heads, tokens, width = attended.shape
        run = self._library.beit_join_bf16 if attended.dtype == torch.bfloat16 else self._library.beit_join_fp32
        run(_at(attended), byref(_Heads(images, tokens, heads, width)), byref(to), torch.get_num_threads())

    def add(self, sums: "Sums", x: Tensor, to: Tensor) -> None:
        """Write the sum with float32 rows; `to` may be `x`."""
        self._library.beit_add(byref(sums), _at(x), _at(to), torch.get_num_threads())

    def activate(self, sums: "Sums", to: "Rows") -> None:
        """Write GELU of the products."""
        self._library.beit_activate(byref(sums), byref(to), torch.get_num_threads())

    def averaged(self, sums: "Sums", images: int) -> Tensor:
        """The mean of GELU of the products over the patches of each image: (images, width)."""
        mean = torch.empty(images, sums.width)
        self._library.beit_average(byref(sums), c_int64(images), _at(mean), torch.get_num_threads())
        return mean


def _at(tensor: Tensor) -> c_void_p:
    return c_void_p(tensor.data_ptr())


class Rows(Structure):
    """Quantized rows, yet to be written: each value times its row's scale."""

    _fields_ = (("values", c_void_p), ("scales", c_void_p), ("count", c_int64), ("width", c_int64))

    def __init__(self, count: int, width: int) -> None:
        self.tensors = (torch.empty(count, width, dtype=torch.int8), torch.empty(count))
        super().__init__(*(each.data_ptr() for each in self.tensors), count, width)


class Sums(Structure):
    """Products of rows with a linear map's weights, to be used before the rows are written anew."""

    _fields_ = (
        *((name, c_void_p) for name in ("sums", "row_scales", "scales", "bias")),
        *(("rows", c_int64), ("width", c_int64)),
    )

    def __init__(self, rows: Rows, linear: Int8Linear) -> None:
        values, scales = rows.tensors
        self.tensors = (torch._int_mm(values, linear.weight), scales, linear.scale, linear.bias)
        super().__init__(*(each.data_ptr() for each in self.tensors), *self.tensors[0].shape)


class _Norm(Structure):
    _fields_ = (("weight", c_void_p), ("bias", c_void_p), ("eps", c_float))

    def __init__(self, norm: nn.LayerNorm) -> None:
        self.tensors = tuple(each.detach().float() for each in (norm.weight, norm.bias))
        super().__init__(*(each.data_ptr() for each in self.tensors), norm.eps)


class _Heads(Structure):
    _fields_ = (("images", c_int64), ("tokens", c_int64), ("heads", c_int64), ("width", c_int64))
