"""Muon for a network of many matrices and few shapes (https://kellerjordan.github.io/posts/muon/)."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

MOMENTUM = 0.95
ITERATIONS = 5
QUINTIC = (3.4445, -4.7750, 2.0315)  # coefficients of x, x³ and x⁵, from the post
RMS = 0.2  # of a step of AdamW (arXiv:2502.16982, section 2.2)


class Muon(Optimizer):
    """Momentum (Nesterov's) made orthogonal, in steps of AdamW's size.

    torch's own takes the matrices one by one and in bf16, which a CPU without instructions for it has to emulate. Here
    all of a shape are made orthogonal together, and in `dtype`.
    """

    def __init__(self, matrices: Iterable[Tensor], rate: float, weight_decay: float, dtype: torch.dtype) -> None:
        super().__init__(matrices, {"lr": rate, "weight_decay": weight_decay})
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        if closure:
            raise TypeError("no closures here")
        for group in self.param_groups:
            for matrices in _by_shape(group["params"]):
                self._step(matrices, group["lr"], group["weight_decay"])

    def _step(self, matrices: list[Tensor], rate: float, weight_decay: float) -> None:
        gradients = [matrix.grad for matrix in matrices]
        momenta = [self._momentum(matrix) for matrix in matrices]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        steps = orthogonal(torch.stack(gradients).lerp(torch.stack(momenta), MOMENTUM).to(self._dtype))
        torch._foreach_mul_(matrices, 1 - rate * weight_decay)
        size = RMS * math.sqrt(max(matrices[0].shape))
        torch._foreach_add_(matrices, steps.to(matrices[0].dtype).unbind(), alpha=-rate * size)

    def _momentum(self, matrix: Tensor) -> Tensor:
        state = self.state[matrix]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(matrix)
        momentum: Tensor = state["momentum"]
        return momentum


def _by_shape(matrices: Iterable[Tensor]) -> Iterable[list[Tensor]]:
    """Those that have a gradient."""
    shapes = defaultdict(list)
    for matrix in matrices:
        if matrix.grad is not None:
            shapes[matrix.shape].append(matrix)
    return shapes.values()


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices (n, rows, columns) with nearly the same singular vectors, and all singular values about 1 (0.7 to 1.2).

    By Newton and Schulz's iteration, tuned to converge soon rather than far (Muon's post).
    """
    rows, columns = matrices.shape[1:]
    x = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    if rows > columns:
        x = x.transpose(1, 2)
    linear, cubic, quintic = QUINTIC
    for _ in range(ITERATIONS):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=cubic, alpha=quintic), x, beta=linear)
    return x.transpose(1, 2) if rows > columns else x
