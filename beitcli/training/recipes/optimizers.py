"""Optimizers and learning rates by parameter."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from beitcli.training.recipes.muon import Muon

BIAS_RATE = 5
"""Learning rate factor of a position bias, whose values are of the size of ones, not hundredths."""


class CombinedOptimizer(Optimizer):
    """Several optimizers as one: schedule, step and checkpoint cover all of them."""

    def __init__(self, optimizers: Iterable[Optimizer]) -> None:
        self._parts = list(optimizers)
        super().__init__([group for part in self._parts for group in part.param_groups], {})
        self._join()

    def _join(self) -> None:
        self.param_groups = [group for part in self._parts for group in part.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        if closure:
            raise TypeError("closures are not supported")
        for part in self._parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._join()


def muon_and_adamw(network: nn.Module, rate: float, weight_decay: float, dtype: torch.dtype) -> Optimizer:
    """Muon, in `dtype`, for the matrices of the layers and the patch projection, AdamW for the other parameters.

    Muon's steps have the size of AdamW's, so that both share one rate; a position bias has BIAS_RATE times that rate.
    Of AdamW's parameters only the head's matrix has weight decay.
    """
    matrices: list[Tensor] = []
    biases: list[Tensor] = []
    head: list[Tensor] = []
    others: list[Tensor] = []
    for name, parameter in network.named_parameters():
        if name.endswith("relative_position_bias_table"):
            biases.append(parameter)
        elif name in ("classifier.weight", "lm_head.weight"):
            head.append(parameter)
        elif parameter.ndim > 1 and not name.endswith(("cls_token", "mask_token")):
            matrices.append(parameter)
        else:
            others.append(parameter)
    rest: list[dict[str, Any]] = [
        {"params": head, "weight_decay": weight_decay},
        {"params": others},
        {"params": biases, "lr": BIAS_RATE * rate},
    ]
    return CombinedOptimizer([Muon(matrices, rate, weight_decay, dtype), AdamW(rest, lr=rate, weight_decay=0.0)])


def layer_wise_adamw(network: nn.Module, layers: int, rate: float, weight_decay: float, decay: float) -> Optimizer:
    """AdamW with layer-wise rate decay: `decay` times the rate for each layer further from the head.

    As in `optim_factory.py` of the paper's code (unilm/beit): the embeddings count as the layer below the first; the
    head and the final normalisation as the layer above the last. No weight decay for one-dimensional parameters,
    absolute positions and the start token.
    """
    groups: dict[tuple[int, bool], list[Tensor]] = {}
    for name, parameter in network.named_parameters():
        decayed = parameter.ndim > 1 and not name.endswith(("cls_token", "position_embeddings"))
        groups.setdefault((_depth(name, layers), decayed), []).append(parameter)
    return AdamW(
        [
            {
                "params": parameters,
                "lr": rate * decay ** (layers + 1 - depth),
                "weight_decay": weight_decay if decayed else 0.0,
            }
            for (depth, decayed), parameters in groups.items()
        ],
        lr=rate,
    )


def _depth(name: str, layers: int) -> int:
    if name.startswith("beit.embeddings."):
        return 0
    if name.startswith("beit.layers."):
        return int(name.split(".")[2]) + 1
    return layers + 1
