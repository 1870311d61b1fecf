"""OpenAI's DALL-E encoder, small and with random weights, as that project's own code pickles it."""

import sys
from collections import OrderedDict
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Conv2d(nn.Module):
    """A convolution with weights `w` and `b`, as in `dall_e/utils.py`."""

    def __init__(self, inputs: int, outputs: int, side: int) -> None:
        super().__init__()
        self.kw, self.use_float16, self.device, self.requires_grad = side, True, torch.device("cpu"), False
        weights = torch.randn(outputs, inputs, side, side)
        weights -= weights.mean((1, 2, 3), keepdim=True)  # tokens of light and dark alike: many of them
        self.w = nn.Parameter(8 * weights / weights.flatten(1).norm(dim=1)[:, None, None, None])
        self.b = nn.Parameter(torch.randn(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.w, self.b, padding=(self.kw - 1) // 2)


class EncoderBlock(nn.Module):
    """A residual block, as in `dall_e/encoder.py`."""

    def __init__(self, inputs: int, outputs: int, layers: int) -> None:
        super().__init__()
        hidden = outputs // 4
        self.post_gain = 1 / (layers**2)
        self.id_path = Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        convolutions = [(inputs, hidden, 3), (hidden, hidden, 3), (hidden, hidden, 3), (hidden, outputs, 1)]
        path: OrderedDict[str, nn.Module] = OrderedDict()
        for number, sides in enumerate(convolutions, start=1):
            path[f"relu_{number}"], path[f"conv_{number}"] = nn.ReLU(), Conv2d(*sides)
        self.res_path = nn.Sequential(path)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.id_path(x) + self.post_gain * self.res_path(x)
        return output


class Encoder(nn.Module):
    """The encoder, as in `dall_e/encoder.py`: four groups of blocks, three of them ending in a pool."""

    def __init__(self, hidden: int, blocks: int, vocabulary: int) -> None:
        super().__init__()
        block = partial(EncoderBlock, layers=4 * blocks)
        parts: OrderedDict[str, nn.Module] = OrderedDict(input=Conv2d(3, hidden, 7))
        inputs = hidden
        for number, width in enumerate((1, 2, 4, 8), start=1):
            group: OrderedDict[str, nn.Module] = OrderedDict()
            for each in range(1, blocks + 1):
                group[f"block_{each}"] = block(inputs, width * hidden)
                inputs = width * hidden
            if number < 4:
                group["pool"] = nn.MaxPool2d(kernel_size=2)
            parts[f"group_{number}"] = nn.Sequential(group)
        parts["output"] = nn.Sequential(OrderedDict(relu=nn.ReLU(), conv=Conv2d(8 * hidden, vocabulary, 1)))
        self.blocks = nn.Sequential(parts)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.blocks(x)
        return logits


_HOMES = {Encoder: "dall_e.encoder", EncoderBlock: "dall_e.encoder", Conv2d: "dall_e.utils"}


def pickled_encoder(path: Path, legacy: bool, seed: int = 0) -> Encoder:
    """The encoder that is pickled at the path, in today's format of torch or in that before 2020."""
    torch.manual_seed(seed)
    encoder = Encoder(16, 2, 300).requires_grad_(False)
    save_as_published(encoder, path, legacy)
    return encoder


def save_as_published(value: Any, path: Path, legacy: bool) -> None:
    """Pickle with the classes under the names of their modules in OpenAI's package, which is not installed."""
    modules = {name: ModuleType(name) for name in ("dall_e", "dall_e.encoder", "dall_e.utils")}
    for module in modules.values():
        module.__file__ = __file__  # the older format of torch keeps the source, too
    names = {each: each.__module__ for each in _HOMES}
    try:
        sys.modules.update(modules)
        for each, home in _HOMES.items():
            each.__module__ = home
            setattr(modules[home], each.__name__, each)
        torch.save(value, path, _use_new_zipfile_serialization=not legacy)
    finally:
        for each, name in names.items():
            each.__module__ = name
        for name in modules:
            del sys.modules[name]
