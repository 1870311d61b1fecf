"""Checkpoint and runtime -> Encoder: pixels in, features out."""

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from beitcli.model.checkpoint import Checkpoint
from beitcli.model.features import Encoding
from beitcli.model.inference import Forward
from beitcli.model.network import Output
from beitcli.model.preprocessing import Preprocessing
from beitcli.model.runtime import Runtime

log = logging.getLogger(__name__)

_LARGEST = 65504.0  # of float16


class Encoder:
    """A loaded checkpoint, whether or not it is a classifier. Raises ModelError where its weights are not complete."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        preprocessing: Preprocessing,
        runtime: Runtime,
        encoding: Encoding,
        batch_size: int = 1,
    ) -> None:
        self._encoding = encoding
        self._reported = False
        output: Output = "layers" if encoding.layer == "all" else encoding.pool
        self._states = Forward(checkpoint, preprocessing, runtime, batch_size, output)

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> list[np.ndarray[Any, Any]]:
        """The features of each image: of shape (hidden,), (patches, hidden) or (layers, hidden).

        In float16, values beyond its range are clamped. Raises DeviceError if the device fails.
        """
        states = self._states(pixels)
        if self._encoding.normalized:
            states = F.normalize(states, dim=-1)
        if self._encoding.half:
            if states.abs().max() > _LARGEST and not self._reported:
                self._reported = True
                log.info("some features are beyond ±%d, the range of float16: they are clamped to it", _LARGEST)
            states = states.clamp(-_LARGEST, _LARGEST).half()
        return list(states.cpu().numpy())
