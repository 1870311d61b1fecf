"""Checkpoint and runtime -> PixelClassifier: pixels in, scores out."""

import numpy as np
import torch
from torch import Tensor

from beitcli.model.checkpoint import Activation, Checkpoint
from beitcli.model.inference import Forward
from beitcli.model.preprocessing import Preprocessing, ProcessorPreprocessing
from beitcli.model.runtime import Runtime
from beitcli.records import Score


class PixelClassifier:
    """A loaded checkpoint. `top_k` 0 means every label; it is fastest at batches of `batch_size`.

    Raises ModelError where the weights do not make a classifier with the checkpoint's labels.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        preprocessing: Preprocessing | ProcessorPreprocessing,
        runtime: Runtime,
        top_k: int,
        batch_size: int = 1,
    ) -> None:
        self._labels = checkpoint.labels
        self._activation = checkpoint.activation
        self._top_k = min(top_k or len(checkpoint.labels), len(checkpoint.labels))
        self._logits = Forward(checkpoint, preprocessing, runtime, batch_size)

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> list[tuple[Score, ...]]:
        """The best labels of each image, best first, the lower index first among equals.

        `pixels` has the preprocessing's shape and dtype behind a first dimension of images. Scores are computed in
        float32 by the checkpoint's activation; those of a regression are its raw outputs. Raises DeviceError if the
        device fails.
        """
        logits = self._logits(pixels)
        scores = _scores(logits, self._activation)
        best, order = scores.sort(dim=-1, descending=True, stable=True)
        indices = order[:, : self._top_k].cpu().numpy()
        values = best[:, : self._top_k].cpu().numpy()
        return [
            tuple(Score(self._labels[index], int(index), _shortest(value)) for index, value in zip(*row, strict=True))
            for row in zip(indices, values, strict=True)
        ]


def _scores(logits: Tensor, activation: Activation) -> Tensor:
    if activation == "none":
        return logits
    return logits.sigmoid() if activation == "sigmoid" else logits.softmax(-1)


def _shortest(value: np.float32) -> float:
    """The shortest decimal that gives this float32 back, as `repr` of the result prints it."""
    return float(str(value))
