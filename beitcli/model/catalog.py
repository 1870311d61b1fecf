"""The known checkpoints: alias, Hub id, size, published accuracy, and their known defects."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DEMO_FOLDER = str(Path(__file__).parent.parent / "demo")


@dataclass(frozen=True, slots=True)
class Known:
    """A checkpoint with an alias. `parameters` in millions; `top1` and `top5` in percent, on ImageNet-1k where stated.

    Those whose labels are PRETRAINED have no classes: they are where `train` and `pretrain` may start.

    Accuracies are those of the README of the paper's own code (unilm/beit): intermediate fine-tuning on ImageNet-22k,
    measured with the preprocessing of `preprocess=paper`. The demo's are on CIFAR-10's test images.
    """

    alias: str
    location: str
    pixels: int
    labels: str
    parameters: float
    top1: float | None = None
    top5: float | None = None

    @property
    def work(self) -> float:
        """Relative work for one image."""
        return self.parameters * self.pixels**2


PRETRAINED = "(pre-trained)"
"""In place of the labels of a masked-image model."""

KNOWN = (
    Known("base-224", "microsoft/beit-base-patch16-224", 224, "ImageNet-1k", 86.5, 85.2, 97.6),
    Known("base-384", "microsoft/beit-base-patch16-384", 384, "ImageNet-1k", 86.7, 86.8, 98.1),
    Known("large-224", "microsoft/beit-large-patch16-224", 224, "ImageNet-1k", 304.4, 87.4, 98.3),
    Known("large-384", "microsoft/beit-large-patch16-384", 384, "ImageNet-1k", 305.0, 88.4, 98.6),
    Known("large-512", "microsoft/beit-large-patch16-512", 512, "ImageNet-1k", 305.7, 88.60, 98.66),
    Known("base-224-22k", "microsoft/beit-base-patch16-224-pt22k-ft22k", 224, "ImageNet-22k", 102.6),
    Known("large-224-22k", "microsoft/beit-large-patch16-224-pt22k-ft22k", 224, "ImageNet-22k", 325.8),
    Known("base-224-pt22k", "microsoft/beit-base-patch16-224-pt22k", 224, PRETRAINED, 92.0),
    Known("large-224-pt22k", "microsoft/beit-large-patch16-224-pt22k", 224, PRETRAINED, 311.5),
    Known("demo", DEMO_FOLDER, 32, "CIFAR-10", 6.3, 87.8, 99.56),
)
BY_ALIAS = {known.alias: known for known in KNOWN}


def has_smaller(location: str) -> bool:
    """True if the checkpoint is a known one, and another one has its labels and takes less work for an image."""
    known = next((each for each in KNOWN if each.location == location), None)
    return known is not None and any(each.labels == known.labels and each.work < known.work for each in KNOWN)


LABELS_22K = 21_843
"""Number of classes of ImageNet-22k."""

DELETED_22K = frozenset({9205, 15027})
"""Classes of ImageNet-22k for which the `-pt22k-ft22k` checkpoints have no output."""


def corrected_labels(id2label: Mapping[int, str]) -> Mapping[int, str]:
    """The labels, renumbered without gaps if their gaps are exactly those of the `-pt22k-ft22k` checkpoints.

    Those have 21,841 outputs for 21,843 classes: two were left out of the fine-tuning, and their keys deleted from the
    label list without renumbering, so that every output from 9205 on is named after its neighbour.
    """
    if set(id2label) != set(range(LABELS_22K)) - DELETED_22K:
        return id2label
    return dict(enumerate(id2label[key] for key in sorted(id2label)))
