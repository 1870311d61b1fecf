"""The model alone: pixels in memory to scores, as a run's own classifier does it."""

from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from beitcli.bench.clock import Effort, Rate, measured_rate
from beitcli.bench.shapes import Shape
from beitcli.model.amx import has_amx_layers
from beitcli.model.checkpoint import Checkpoint
from beitcli.model.classifier import Classifier
from beitcli.model.lanes import Lanes
from beitcli.model.memory import Heap
from beitcli.model.recipe import Recipe
from beitcli.model.runtime import Runtime, choose_runtime
from beitcli.records import Score

BATCH_SIZES = (1, 8, 16, 32)
GPU_BATCH_SIZES = (*BATCH_SIZES, 64, 128)
COMPILED_BATCH_SIZES = (1, 8)  # each takes a while to compile, except with AMX

IN_FLIGHT = 4
"""Batches that are handed over at once: enough for every lane to have its next one."""


@dataclass(frozen=True, slots=True)
class ModelRate:
    """Images a second of the model alone; `share` of the rate of its linear maps with nothing between them."""

    runtime: Runtime
    batch_size: int
    images: Rate
    gflops: float
    share: float


def runtimes(device: str, compiled: bool) -> list[Runtime]:
    """The ways of running the model that make sense: what `--dtype auto` takes, compiled too if asked for, and fp32."""
    best = replace(choose_runtime(device, "auto"), crowded=True)
    ways = (best, *((replace(best, compiled=True),) if compiled else ()), replace(best, dtype="fp32"))
    return list(dict.fromkeys(ways))


def model_rates(
    shape: Shape, checkpoint: Checkpoint, recipe: Recipe, runtime: Runtime, linear_rate: float, effort: Effort
) -> list[ModelRate]:
    """The rate of the classifier for each batch size; `linear_rate` in GFLOP/s is what it is compared with."""
    rates = []
    sizes = BATCH_SIZES if runtime.device == "cpu" else GPU_BATCH_SIZES
    for size in COMPILED_BATCH_SIZES if runtime.compiled and not has_amx_layers(runtime) else sizes:
        classifier = Classifier(checkpoint, recipe, runtime, top_k=5, batch_size=size)
        Heap()  # as a run has it
        pixels = torch.randint(0, 256, (size, *recipe.shape), dtype=torch.uint8)
        with closing(Lanes(classifier, runtime)) as lanes:
            images = measured_rate(size * IN_FLIGHT, partial(_answer, lanes, pixels), effort)
        gflops = images.per_second * shape.gflop
        rates.append(ModelRate(runtime, size, images, gflops, gflops / linear_rate))
    return rates


def _answer(lanes: Lanes[tuple[Score, ...]], pixels: Tensor) -> None:
    for answers in [lanes.submit(pixels) for _ in range(IN_FLIGHT)]:
        answers.result()
