"""A computation for workers in which an image may end its worker, as a fault of a driver or a library would."""

import os
import signal
from typing import Any

from torch import Tensor

from beitcli.jobs.engine import RunPlan
from beitcli.jobs.requests import Compute, Inputs, ModelChoice, Request
from beitcli.model.checkpoint import open_checkpoint
from beitcli.pipeline import Model, Settings
from beitcli.records import Prediction, Score


def deadly_plan() -> RunPlan[Prediction]:
    """A label that is the mean of an image's pixels; an image of one bright colour ends the process."""
    request = Request(Inputs(), model=ModelChoice("demo"), compute=Compute(batch_size=2, workers=0, device="cpu"))
    checkpoint = open_checkpoint("demo", None)
    return RunPlan(request, checkpoint, _load, Prediction, padded=True)


def _load(_: Settings) -> Model:
    return _means


def _means(pixels: Tensor) -> list[Any]:
    if any(bool((image == 255).all()) for image in pixels):
        os.kill(os.getpid(), signal.SIGKILL)
    return [(Score("mean", 0, float(image.float().mean())),) for image in pixels]
