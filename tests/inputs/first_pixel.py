"""A preprocessing that ends its process on some colours; an isolated decoder imports it, so it imports little."""

import os
import signal
import sys
from dataclasses import dataclass
from types import FrameType
from typing import Any

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class FirstPixel:
    """Two by two pixels of the image's own colour.

    Red ones crash their decoder, green ones get it killed, and so do blue ones with a lock that torch's loop shares.
    """

    shape = (2, 2, 3)
    dtype = "uint8"

    def __call__(self, image: Image.Image) -> np.ndarray:
        pixels = np.asarray(image.resize((2, 2)))
        if tuple(pixels[0, 0]) == (255, 0, 0):
            os.kill(os.getpid(), signal.SIGSEGV)
        if tuple(pixels[0, 0]) == (0, 255, 0):
            os.kill(os.getpid(), signal.SIGKILL)
        if tuple(pixels[0, 0]) == (0, 0, 255) and (event := done_event()):
            event._cond.acquire()
            os.kill(os.getpid(), signal.SIGKILL)
        return pixels


def done_event() -> Any:
    """The event that a worker of torch's DataLoader checks before every list; None in another process."""
    frame: FrameType | None = sys._getframe()
    while frame and "done_event" not in frame.f_locals:
        frame = frame.f_back
    return frame and frame.f_locals["done_event"]
