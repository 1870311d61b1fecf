"""Upper bounds of this device: plain matrix products, and the model's linear maps with nothing between them.

On a shared machine, a model's rate means little by itself; compare it with these, measured in the same run.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from beitcli.bench.clock import Effort, Rate, measured_rate
from beitcli.bench.shapes import TINY, Shape
from beitcli.model.cpu.packing import can_pack
from beitcli.model.runtime import INT8, Runtime

BATCH = 16

_SIDE, _TINY_SIDE = 4096, 256


@dataclass(frozen=True, slots=True)
class Ceiling:
    """GFLOP/s in one dtype: of a square matrix product, and of the linear maps of one layer, `packed` or not."""

    dtype: str
    side: int
    product: Rate
    linears: Rate
    packed: bool


@torch.inference_mode()
def ceiling(shape: Shape, runtime: Runtime, effort: Effort) -> Ceiling:
    """Upper bounds for this shape on this device in this dtype."""
    side = _TINY_SIDE if shape is TINY else _SIDE
    if runtime.dtype == INT8:
        return _ceiling_of_int8(shape, side, effort)
    left, right = (torch.randn(side, side).to(runtime.device, runtime.torch_dtype) for _ in range(2))
    product = measured_rate(2e-9 * side**3, lambda: _wait_for(left @ right), effort)
    packed = runtime.device == "cpu" and can_pack(runtime.torch_dtype)
    maps = [_linear_map(*sides, BATCH * shape.tokens, runtime, packed) for sides in shape.linears]
    linears = measured_rate(BATCH * shape.linear_gflop, lambda: _wait_for([work() for work in maps][-1]), effort)
    return Ceiling(runtime.dtype, side, product, linears, packed)


def _ceiling_of_int8(shape: Shape, side: int, effort: Effort) -> Ceiling:
    left, right = _bytes(side, side), _bytes(side, side)
    product = measured_rate(2e-9 * side**3, lambda: torch._int_mm(left, right.t()), effort)
    maps = [(_bytes(BATCH * shape.tokens, inputs), _bytes(outputs, inputs).t()) for outputs, inputs in shape.linears]
    linears = measured_rate(BATCH * shape.linear_gflop, lambda: [torch._int_mm(*each) for each in maps], effort)
    return Ceiling(INT8, side, product, linears, packed=False)


def _bytes(*sides: int) -> Tensor:
    return torch.randint(-127, 128, sides, dtype=torch.int8)


def _linear_map(outputs: int, inputs: int, rows: int, runtime: Runtime, packed: bool) -> Callable[[], Tensor]:
    """One linear map of `rows` rows, ready to run; if packed, its weights are already in the library's order."""
    weight, bias, x = (
        torch.randn(*sides).to(runtime.device, runtime.torch_dtype)
        for sides in ((outputs, inputs), (outputs,), (rows, inputs))
    )
    if not packed:
        return lambda: F.linear(x, weight, bias)
    reordered = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    return lambda: torch.ops.mkldnn._linear_pointwise(x, reordered, bias, "none", [], "")


def _wait_for(result: Tensor) -> None:
    """Wait for an asynchronous device."""
    if result.is_cuda:
        torch.cuda.synchronize(result.device)
    elif result.is_mps:
        torch.mps.synchronize()
