"""Two views of one augmented image: one for the network, one for the tokenizer."""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from PIL.Image import Resampling
from torch import Generator, Tensor

from beitcli.training.data.augmentation import jittered, shifted_and_flipped

SHARES, RATIOS = (0.08, 1.0), (3 / 4, 4 / 3)  # of the crops in the paper's code
JITTER = 0.4
SMALL_JITTER = 0.2

_TRIES = 10


class Views(Protocol):
    """Augmentation of a batch into two views."""

    def __call__(self, pixels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """uint8 pixels (n, h, w, 3) -> float views (n, side, side, 3) in [0, 1]: for the network, for the tokenizer."""
        ...


@dataclass(frozen=True, slots=True)
class CroppedViews:
    """Colour jitter, a flip, and one random crop, resized bicubic for the network and by Lanczos for the tokenizer.

    As `datasets.py` and `transforms.py` of the paper's code (unilm/beit), the order included.
    """

    side: int
    token_side: int

    def __call__(self, pixels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        images = (jittered(pixels.float() / 255, JITTER, generator) * 255).round().to(torch.uint8)
        flipped = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
        images = torch.where(flipped, images.flip(2), images)
        crops = [_cropped(image, generator) for image in images.numpy()]
        return tuple(  # type: ignore[return-value]  # two
            _scaled(np.stack([_resized(crop, side, by) for crop in crops]))
            for side, by in ((self.side, Resampling.BICUBIC), (self.token_side, Resampling.LANCZOS))
        )


@dataclass(frozen=True, slots=True)
class ShiftedViews:
    """Shifts, flips and a little colour jitter, for images so small that crops would be blurred."""

    side: int
    token_side: int

    def __call__(self, pixels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        shifted = shifted_and_flipped(pixels, pixels.shape[1] // 8, generator)
        return _pair(jittered(shifted.float() / 255, SMALL_JITTER, generator), self.token_side)


@dataclass(frozen=True, slots=True)
class PlainViews:
    """The whole images, as they are."""

    token_side: int

    def __call__(self, pixels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        return _pair(pixels.float() / 255, self.token_side)


def _pair(images: Tensor, token_side: int) -> tuple[Tensor, Tensor]:
    if images.shape[1] == token_side:
        return images, images
    return images, _scaled(resized((images * 255).round().to(torch.uint8), token_side, Resampling.LANCZOS).numpy())


def resized(images: Tensor, side: int, by: Resampling) -> Tensor:
    """uint8 images (n, h, w, 3) as squares of this side."""
    if images.shape[1:3] == (side, side):
        return images
    return torch.from_numpy(np.stack([_resized(Image.fromarray(image), side, by) for image in images.numpy()]))


def _resized(image: Image.Image, side: int, by: Resampling) -> np.ndarray:
    return np.asarray(image.resize((side, side), by))


def _scaled(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).float() / 255


def _cropped(image: np.ndarray, generator: Generator) -> Image.Image:
    """A random crop of these shares and ratios, as torchvision's RandomResizedCrop draws it.

    Where ten tries do not fit, it is the middle of the image, as large as the ratios allow.
    """
    height, width = image.shape[:2]
    for area, ratio, y, x in torch.rand(_TRIES, 4, generator=generator).tolist():
        wanted = height * width * (SHARES[0] + area * (SHARES[1] - SHARES[0]))
        aspect = math.exp(math.log(RATIOS[0]) + ratio * math.log(RATIOS[1] / RATIOS[0]))
        columns, rows = round(math.sqrt(wanted * aspect)), round(math.sqrt(wanted / aspect))
        if 0 < columns <= width and 0 < rows <= height:
            top, left = int(y * (height - rows + 1)), int(x * (width - columns + 1))
            return Image.fromarray(image[top : top + rows, left : left + columns])
    columns, rows = min(width, round(height * RATIOS[1])), min(height, round(width / RATIOS[0]))
    top, left = (height - rows) // 2, (width - columns) // 2
    return Image.fromarray(image[top : top + rows, left : left + columns])
