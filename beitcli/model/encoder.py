"""Checkpoint and runtime -> Encoder: pixels in, features out."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from beitcli.errors import ModelError
from beitcli.model.checkpoint import Checkpoint
from beitcli.model.features import Encoding
from beitcli.model.forward import Forward
from beitcli.model.recipe import Recipe
from beitcli.model.runtime import Runtime


class Encoder:
    """A loaded checkpoint, whether or not it is a classifier. Raises ModelError where its weights are not complete."""

    def __init__(
        self, checkpoint: Checkpoint, recipe: Recipe, runtime: Runtime, encoding: Encoding, batch_size: int = 1
    ) -> None:
        self._encoding = encoding
        self._states = Forward(checkpoint, recipe, runtime, batch_size, encoding.pool)

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> list[np.ndarray[Any, Any]]:
        """The features of each picture: of shape (hidden,), or (patches, hidden).

        Raises DeviceError where the device fails, ModelError where features do not fit float16.
        """
        states = self._states(pixels)
        if self._encoding.normalized:
            states = F.normalize(states, dim=-1)
        if self._encoding.half:
            states = states.half()
            if not states.isfinite().all():
                raise ModelError("there are features beyond the range of float16", "add --normalize, or keep float32")
        return list(states.cpu().numpy())
