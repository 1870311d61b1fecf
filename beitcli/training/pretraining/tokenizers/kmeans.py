"""A codebook of the user's own images: k-means of whitened windows, one centred on each patch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL.Image import Resampling
from torch import Tensor
from torch.nn import functional as F

from beitcli.errors import UsageError
from beitcli.training.data.batches import seeded
from beitcli.training.data.pixels import Pixels
from beitcli.training.pretraining.tokenizers.protocol import digest_of_tensors, save_tokenizer
from beitcli.training.pretraining.views import resized

KIND = "kmeans"

PATCH, WINDOW = 4, 8
"""Sides in pixels of a patch, and of the window centred on it: codes of patches alone say less about the image."""

DIMENSIONS = 64
"""Principal components that are kept of a window."""

MAX_IMAGES, MAX_WINDOWS = 4000, 200_000
"""Size of the sample to which the codebook is fitted."""

_AT_ONCE = 64
_BATCH_SIZE = 4096  # of MiniBatchKMeans
_NEGLIGIBLE = 1e-6
"""Variance of a principal component, as a share of the largest, below which it is noise of rounding."""


@dataclass(frozen=True, slots=True)
class KMeansTokenizer:
    """Whitening and centroids: `mean` (window,), `whitening` (window, dimensions), `centroids` (tokens, dimensions).

    `grid` is the number of patches in a row and in a column of the images that it was fitted to.
    """

    mean: Tensor
    whitening: Tensor
    centroids: Tensor
    grid: int

    @property
    def vocabulary(self) -> int:
        return len(self.centroids)

    @property
    def digest(self) -> str:
        return digest_of_tensors(self._tensors)

    @property
    def pixels_a_patch(self) -> int:
        return PATCH

    @property
    def description(self) -> str:
        return (
            f"the nearest of {self.vocabulary} centroids, fitted by scikit-learn's MiniBatchKMeans to windows of "
            f"{WINDOW} × {WINDOW} pixels around the patches (of {PATCH} × {PATCH}), whitened in "
            f"{self.whitening.shape[1]} principal components"
        )

    @property
    def _tensors(self) -> dict[str, Tensor]:
        return {"mean": self.mean, "whitening": self.whitening, "centroids": self.centroids}

    def to(self, device: str) -> "KMeansTokenizer":
        return KMeansTokenizer(self.mean.to(device), self.whitening.to(device), self.centroids.to(device), self.grid)

    def __call__(self, views: Tensor) -> Tensor:
        whitened = (windows(views) - self.mean) @ self.whitening
        nearness = torch.baddbmm(  # that of the squared distance which differs between centroids, negated and halved
            self.centroids.square().sum(1)[None, None],
            whitened,
            self.centroids.T.expand(len(views), -1, -1),
            beta=-0.5,
        )
        return nearness.argmax(-1)

    def save(self, path: str) -> None:
        save_tokenizer(path, self._tensors, kind=KIND, grid=self.grid)


def windows(views: Tensor) -> Tensor:
    """The windows (n, patches, 3 * WINDOW * WINDOW) of views (n, 3, height, width), mirrored at the edges."""
    margin = (WINDOW - PATCH) // 2
    return F.unfold(F.pad(views, (margin,) * 4, "reflect"), WINDOW, stride=PATCH).transpose(1, 2)


def codebook_from(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> KMeansTokenizer:
    """The tokenizer that `save` wrote."""
    return KMeansTokenizer(tensors["mean"], tensors["whitening"], tensors["centroids"], int(facts["grid"]))


def fit_codebook(pixels: Pixels, grid: int, vocabulary: int, seed: int) -> KMeansTokenizer:
    """A codebook of so many tokens, fitted to a sample of the images; the seed decides, whatever the cores.

    Raises UsageError where the sample has fewer distinct windows than the codebook is to have tokens.
    """
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    sample = np.concatenate(list(_sampled(pixels, grid, seed)))
    distinct = len(np.unique(sample.view(np.dtype((np.void, sample.shape[1])))))
    if distinct < vocabulary:
        raise UsageError(
            f"`vocab={vocabulary}`: the images have {distinct} distinct windows",
            f"add images, or take a smaller codebook: `vocab={max(2, distinct // 10)}`",
        )
    with threadpool_limits(1):  # sums in the order of one core
        values = sample.astype(np.float32) / 255
        mean, whitening = _whitening(values)
        kmeans = MiniBatchKMeans(vocabulary, random_state=seed % 2**32, batch_size=_BATCH_SIZE, n_init=1)
        kmeans.fit((values - mean) @ whitening)
    centroids = np.ascontiguousarray(kmeans.cluster_centers_, np.float32)
    return KMeansTokenizer(torch.from_numpy(mean), torch.from_numpy(whitening), torch.from_numpy(centroids), grid)


def _sampled(pixels: Pixels, grid: int, seed: int) -> Iterator[np.ndarray]:
    """Windows of a sample of the images, in parts: uint8 of shape (windows, 3 * WINDOW * WINDOW)."""
    generator = seeded(seed, "codebook")
    chosen = torch.randperm(len(pixels), generator=generator)[:MAX_IMAGES].tolist()
    a_image = min(grid * grid, -(-MAX_WINDOWS // len(chosen)))
    for start in range(0, len(chosen), _AT_ONCE):
        views = resized(pixels[chosen[start : start + _AT_ONCE]], grid * PATCH, Resampling.LANCZOS)
        cut = windows(views.permute(0, 3, 1, 2).float()).to(torch.uint8)
        kept = torch.rand(cut.shape[:2], generator=generator).argsort(1)[:, :a_image].sort(1).values
        yield cut.gather(1, kept[:, :, None].expand(-1, -1, cut.shape[2])).flatten(0, 1).numpy()


def _whitening(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and whitening of the largest principal components, each with the sign that makes its largest part positive.

    The sign of an eigenvector is arbitrary.
    """
    mean = values.mean(0, dtype=np.float64)
    covariance = np.cov(values, rowvar=False, dtype=np.float64)
    variances, vectors = np.linalg.eigh(covariance)
    order = variances.argsort()[::-1][:DIMENSIONS]
    order = order[variances[order] > _NEGLIGIBLE * variances[order[0]]]
    kept = vectors[:, order] / np.sqrt(variances[order])
    kept *= np.sign(np.take_along_axis(kept, np.abs(kept).argmax(0)[None], 0))
    return mean.astype(np.float32), np.ascontiguousarray(kept, np.float32)
