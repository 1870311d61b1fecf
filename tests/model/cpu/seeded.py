"""Seeded checkpoints and pixels for the layers of our own, and how far states are from float32."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from beitcli.model.network import PixelScale

HALF = PixelScale(1 / 255, (0.5,) * 3, (0.5,) * 3)
RELATIVE = {"use_relative_position_bias": True}


def saved(folder: Path, **config: Any) -> str:
    """Save a seeded checkpoint with heads of 64, and weights larger than rounding errors; return the folder."""
    from transformers import BeitConfig, BeitForImageClassification

    torch.manual_seed(3)
    small = {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 512}
    network = BeitForImageClassification(
        BeitConfig(**{"image_size": 32, "patch_size": 8, "num_labels": 5, **small, **config})
    )
    for name, parameter in network.named_parameters():
        parameter.data = torch.randn_like(parameter) * (0.5 if "bias" in name else 0.15)
    network.save_pretrained(folder)
    return str(folder)


def pixels(count: int, side: int) -> Tensor:
    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def error(states: Tensor, exact: Tensor) -> float:
    return float((states.float() - exact).pow(2).mean().sqrt() / exact.pow(2).mean().sqrt())
