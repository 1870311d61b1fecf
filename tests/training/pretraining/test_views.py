"""Two views of one augmented image."""

import torch
from torch.nn import functional as F

from beitcli.training.data.batches import seeded
from beitcli.training.pretraining.views import CroppedViews, PlainViews, ShiftedViews


def smooth_images(count: int, side: int) -> torch.Tensor:
    """Random colours that change slowly: resizing keeps them."""
    colours = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    images = F.interpolate(colours, (side, side), mode="bicubic").clamp(0, 1)
    return (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def test_both_views_show_the_same_crop_and_each_image_another_one() -> None:
    pixels = smooth_images(1, 64).expand(16, -1, -1, -1)
    images, token_views = CroppedViews(56, 28)(pixels, seeded("views"))
    assert images.shape == (16, 56, 56, 3) and token_views.shape == (16, 28, 28, 3)
    halved = F.avg_pool2d(images.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    assert (halved - token_views).abs().max() < 0.05
    assert len(images.flatten(1).unique(dim=0)) == 16
    again, _ = CroppedViews(56, 28)(pixels, seeded("views"))
    assert torch.equal(images, again)


def test_views_of_small_images_are_the_same_pixels() -> None:
    pixels = smooth_images(8, 32)
    images, token_views = ShiftedViews(32, 32)(pixels, seeded("views"))
    assert images is token_views
    _, larger = ShiftedViews(32, 64)(pixels, seeded("views"))
    assert larger.shape == (8, 64, 64, 3)
    plain, _ = PlainViews(32)(pixels, seeded("views"))
    assert torch.equal((plain * 255).round().to(torch.uint8), pixels)
