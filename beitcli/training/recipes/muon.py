"""Muon optimizer for a network of many matrices and few shapes (https://kellerjordan.github.io/posts/muon/)."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

MOMENTUM = 0.95
ITERATIONS = 5
QUINTIC = (3.4445, -4.7750, 2.0315)  # coefficients of x, x³ and x⁵, from the post
RMS = 0.2  # of an AdamW step (arXiv:2502.16982, section 2.2)


class Muon(Optimizer):
    """Orthogonalised Nesterov momentum, in steps of AdamW's size; a convolution's weights are flattened to a matrix.

    torch's Muon takes the matrices one by one and in bf16, which a CPU without bf16 instructions emulates. This one
    orthogonalises all matrices of a shape together, in `dtype`.
    """

    def __init__(self, weights: Iterable[Tensor], rate: float, weight_decay: float, dtype: torch.dtype) -> None:
        super().__init__(weights, {"lr": rate, "weight_decay": weight_decay})
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        if closure:
            raise TypeError("closures are not supported")
        for group in self.param_groups:
            for weights in _by_shape(group["params"]):
                self._step(weights, group["lr"], group["weight_decay"])

    def _step(self, weights: list[Tensor], rate: float, weight_decay: float) -> None:
        matrices = [each.flatten(1) for each in weights]
        momenta = [self._momentum(each) for each in weights]
        gradients = [each.grad.flatten(1) for each in weights if each.grad is not None]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        steps = orthogonalised(torch.stack(gradients).lerp(torch.stack(momenta), MOMENTUM).to(self._dtype))
        torch._foreach_mul_(matrices, 1 - rate * weight_decay)
        size = RMS * math.sqrt(max(matrices[0].shape))
        torch._foreach_add_(matrices, steps.to(matrices[0].dtype).unbind(), alpha=-rate * size)

    def _momentum(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        momentum: Tensor = state["momentum"]
        return momentum.flatten(1)


def _by_shape(weights: Iterable[Tensor]) -> Iterable[list[Tensor]]:
    """The weights that have a gradient, grouped by shape."""
    shapes = defaultdict(list)
    for each in weights:
        if each.grad is not None:
            shapes[each.shape].append(each)
    return shapes.values()


def orthogonalised(matrices: Tensor) -> Tensor:
    """Orthogonalised matrices (n, rows, columns): singular values about 1 (0.7 to 1.2), vectors nearly the same.

    By a Newton-Schulz iteration tuned for speed rather than exact convergence (Muon's post).
    """
    rows, columns = matrices.shape[1:]
    x: Tensor = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    if rows > columns:
        x = x.transpose(1, 2)
    linear, cubic, quintic = QUINTIC
    for _ in range(ITERATIONS):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=cubic, alpha=quintic), x, beta=linear)
    return x.transpose(1, 2) if rows > columns else x
