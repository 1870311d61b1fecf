"""The model alone: pixels in memory to scores, by the same classifier as in a run."""

from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from beitcli.bench.clock import Effort, Rate, measured_rate
from beitcli.bench.shapes import Shape
from beitcli.model.checkpoint import Checkpoint
from beitcli.model.classifier import PixelClassifier
from beitcli.model.cpu.heap import Heap
from beitcli.model.cpu.own_layers import has_own_layers
from beitcli.model.inference_pool import InferencePool
from beitcli.model.preprocessing import Preprocessing
from beitcli.model.runtime import INT8, Runtime, choose_runtime

BATCH_SIZES = (1, 8, 16, 32)
GPU_BATCH_SIZES = (*BATCH_SIZES, 64, 128)
COMPILED_BATCH_SIZES = (1, 8)  # each takes a while to compile, except where the layers are our own

IN_FLIGHT = 4
"""Batches that are submitted at once: enough for every thread to have its next one."""


@dataclass(frozen=True, slots=True)
class ModelRate:
    """Images per second of the model alone; `share` is its part of the rate of its linear maps alone."""

    runtime: Runtime
    batch_size: int
    images: Rate
    gflops: float
    share: float


def runtimes(device: str, compiled: bool) -> list[Runtime]:
    """Runtimes to measure: the dtype `auto`, fp32, and on a CPU int8; if `compiled`, each with own layers too."""
    best = replace(choose_runtime(device, "auto"), many_batches=True)
    others = ("fp32", INT8) if best.device == "cpu" else ("fp32",)
    made = []
    for each in dict.fromkeys((best, *(replace(best, dtype=other) for other in others))):
        made.append(each)
        if compiled and has_own_layers(each):
            made.append(replace(each, compiled=True))
    return made


def model_rates(
    shape: Shape,
    checkpoint: Checkpoint,
    preprocessing: Preprocessing,
    runtime: Runtime,
    linear_rate: float,
    effort: Effort,
) -> list[ModelRate]:
    """The classifier's rate for each batch size, compared with `linear_rate` in GFLOP/s."""
    rates = []
    sizes = BATCH_SIZES if runtime.device == "cpu" else GPU_BATCH_SIZES
    for size in COMPILED_BATCH_SIZES if runtime.compiled and not has_own_layers(runtime) else sizes:
        classifier = PixelClassifier(checkpoint, preprocessing, runtime, top_k=5, batch_size=size)
        Heap()  # as in a run
        pixels = torch.randint(0, 256, (size, *preprocessing.shape), dtype=torch.uint8)
        with closing(InferencePool(classifier, runtime)) as pool:
            images = measured_rate(size * IN_FLIGHT, partial(_infer, pool, pixels), effort)
        gflops = images.per_second * shape.gflop
        rates.append(ModelRate(runtime, size, images, gflops, gflops / linear_rate))
    return rates


def _infer(pool: InferencePool, pixels: Tensor) -> None:
    for predictions in [pool.submit(pixels) for _ in range(IN_FLIGHT)]:
        predictions.result()
