"""The codebook of the user's own images."""

from pathlib import Path

import pytest
import torch

from beitcli.errors import UsageError
from beitcli.training.pretraining.tokenizers.kmeans import KMeansTokenizer, fit_codebook, windows
from beitcli.training.pretraining.tokenizers.protocol import TOKENIZER
from beitcli.training.pretraining.tokenizers.saved import open_tokenizer


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randint(256, (60, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def codebook(pixels: torch.Tensor) -> KMeansTokenizer:
    return fit_codebook(pixels, 8, 32, seed=1)


def test_windows_are_centred_on_their_patches() -> None:
    views = torch.arange(16 * 16, dtype=torch.float32).view(1, 1, 16, 16).expand(1, 3, -1, -1)
    cut = windows(views).view(1, 16, 3, 8, 8)
    assert torch.equal(cut[0, 5, 0, 2:6, 2:6], views[0, 0, 4:8, 4:8])
    assert torch.equal(cut[0, 0, 0, 2:, 2:], views[0, 0, :6, :6])
    assert torch.equal(cut[0, 0, 0, 1], cut[0, 0, 0, 3])  # mirrored at the edge


def test_a_token_is_the_nearest_centroid(codebook: KMeansTokenizer, pixels: torch.Tensor) -> None:
    views = pixels.permute(0, 3, 1, 2).float() / 255
    whitened = (windows(views) - codebook.mean).double() @ codebook.whitening.double()
    nearest = torch.cdist(whitened.flatten(0, 1), codebook.centroids.double()).argmin(1).view(60, 64)
    tokens = codebook(views)
    assert tokens.shape == (60, 64) and (tokens == nearest).double().mean() > 0.999
    assert len(tokens.unique()) == codebook.vocabulary == 32


def test_the_seed_decides_and_not_the_number_of_cores(
    codebook: KMeansTokenizer, pixels: torch.Tensor, tmp_path: Path
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        again = fit_codebook(pixels, 8, 32, seed=1)
    finally:
        torch.set_num_threads(threads)
    assert again.digest == codebook.digest != fit_codebook(pixels, 8, 32, seed=2).digest
    codebook.save(str(tmp_path / TOKENIZER))
    opened = open_tokenizer(str(tmp_path / TOKENIZER))
    assert (opened.digest, opened.grid, opened.vocabulary) == (codebook.digest, 8, 32)


def test_a_file_of_something_else_is_no_tokenizer(tiny_beit: Path) -> None:
    with pytest.raises(UsageError, match="no tokenizer of a pre-training"):
        open_tokenizer(str(tiny_beit / "model.safetensors"))


def test_images_without_contrast_have_no_codebook() -> None:
    with pytest.raises(UsageError, match="the images have 1 distinct windows"):
        fit_codebook(torch.full((4, 32, 32, 3), 7, dtype=torch.uint8), 8, 2, seed=0)
