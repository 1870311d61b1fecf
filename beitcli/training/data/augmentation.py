"""Random augmentation of whole batches: uint8 in, float32 in [0, 1] out, every draw from one generator."""

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in Pillow


def shifted_and_flipped(pixels: Tensor, margin: int, generator: Generator) -> Tensor:
    """Images shifted by up to `margin` pixels with mirrored edges, half of them flipped.

    `pixels` is (n, height, width, 3) of any dtype.
    """
    count, height, width = pixels.shape[:3]
    rows = _mirrored(_starts(count, margin, generator) + torch.arange(height), height)
    columns = _mirrored(_starts(count, margin, generator) + torch.arange(width), width)
    flipped = torch.rand(count, 1, generator=generator) < 0.5
    columns = torch.where(flipped, columns.flip(1), columns)
    return pixels[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def _starts(count: int, margin: int, generator: Generator) -> Tensor:
    return torch.randint(-margin, margin + 1, (count, 1), generator=generator)


def _mirrored(positions: Tensor, size: int) -> Tensor:
    positions = positions.abs()
    return torch.where(positions >= size, 2 * (size - 1) - positions, positions)


def jittered(images: Tensor, strength: float, generator: Generator) -> Tensor:
    """Images (n, h, w, 3) in [0, 1], brightness, contrast and saturation each times a factor in 1 ± strength."""
    brightness, contrast, saturation = 1 + strength * (2 * torch.rand(3, len(images), 1, 1, 1, generator=generator) - 1)
    images = images * brightness
    grey = (images * torch.tensor(_LUMA)).sum(-1, keepdim=True)
    mean = grey.mean((1, 2), keepdim=True)
    images = torch.lerp(grey, images, saturation)
    return torch.lerp(mean, images, contrast).clamp_(0, 1)


def smoothed(targets: Tensor, classes: int, smoothing: float) -> Tensor:
    """Soft targets (n, classes), `smoothing` of each spread over all classes (arXiv:1512.00567)."""
    return F.one_hot(targets, classes) * (1 - smoothing) + smoothing / classes


def mixed(images: Tensor, targets: Tensor, alphas: tuple[float, float], generator: Generator) -> tuple[Tensor, Tensor]:
    """Mixup (arXiv:1710.09412) or cutmix (arXiv:1905.04899) of the batch with a permutation of itself, at even odds.

    `alphas` are the parameters of their beta distributions. Images (n, h, w, 3) and targets (n, classes) are mixed.
    """
    order = torch.randperm(len(images), generator=generator)
    if torch.rand((), generator=generator) < 0.5:
        share = _beta(alphas[0], generator)
        images = torch.lerp(images[order], images, share)
    else:
        top, bottom, left, right = _box(1 - _beta(alphas[1], generator), images.shape[1], images.shape[2], generator)
        images = images.clone()
        images[:, top:bottom, left:right] = images[order, top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / (images.shape[1] * images.shape[2])
    return images, torch.lerp(targets[order], targets, share)


def _beta(alpha: float, generator: Generator) -> float:
    """A draw from Beta(alpha, alpha), by two gamma draws."""
    first, second = torch._standard_gamma(torch.full((2,), alpha, dtype=torch.float64), generator=generator).tolist()
    return float(first / (first + second)) if first + second else 0.5


def _box(area: float, height: int, width: int, generator: Generator) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of a box with this share of the area and a random centre, clipped to the image."""
    side = math.sqrt(area)
    y, x = (torch.rand(2, generator=generator) * torch.tensor([height, width])).tolist()
    half_height, half_width = side * height / 2, side * width / 2
    top, bottom = max(0, round(y - half_height)), min(height, round(y + half_height))
    left, right = max(0, round(x - half_width)), min(width, round(x + half_width))
    return top, bottom, left, right


def cropped(
    images: Tensor, side: int, shares: tuple[float, float], ratios: tuple[float, float], generator: Generator
) -> Tensor:
    """Random resized crops, half of them flipped: float (n, h, w, 3) to (n, side, side, 3), bilinear.

    The share of the area and the aspect ratio are drawn from `shares` and `ratios`.
    """
    count = len(images)
    area, ratio, y, x, flip = torch.rand(5, count, generator=generator)
    area = shares[0] + area * (shares[1] - shares[0])
    ratio = torch.exp(math.log(ratios[0]) + ratio * math.log(ratios[1] / ratios[0]))
    height, width = (area / ratio).sqrt().clamp(max=1), (area * ratio).sqrt().clamp(max=1)
    # In the coordinates of affine_grid, from -1 to 1, a crop of height h has its centre within 1 - h of the middle.
    transform = torch.zeros(count, 2, 3)
    transform[:, 0, 0] = width * torch.where(flip < 0.5, -1.0, 1.0)
    transform[:, 0, 2] = (2 * x - 1) * (1 - width)
    transform[:, 1, 1] = height
    transform[:, 1, 2] = (2 * y - 1) * (1 - height)
    grid = F.affine_grid(transform, [count, 3, side, side], align_corners=False)
    channels_first = images.permute(0, 3, 1, 2)
    crops = F.grid_sample(channels_first, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return crops.permute(0, 2, 3, 1)


def erased(images: Tensor, share: float, generator: Generator) -> Tensor:
    """Random erasing (arXiv:1708.04896): a box of normal noise in that share of the normalised images (n, h, w, 3).

    The box has 2 % to a third of the area and an aspect ratio of 3:10 to 10:3, as in timm, which the paper's code uses.
    """
    images = images.clone()
    height, width = images.shape[1:3]
    chosen = (torch.rand(len(images), generator=generator) < share).nonzero().flatten().tolist()
    for index in chosen:
        area, ratio, y, x = torch.rand(4, generator=generator).tolist()
        area = (0.02 + area * (1 / 3 - 0.02)) * height * width
        ratio = math.exp((2 * ratio - 1) * math.log(10 / 3))
        rows, columns = min(height, round(math.sqrt(area * ratio))), min(width, round(math.sqrt(area / ratio)))
        top, left = int(y * (height - rows + 1)), int(x * (width - columns + 1))
        noise = torch.randn(rows, columns, 3, generator=generator)
        images[index, top : top + rows, left : left + columns] = noise
    return images
