"""Training from start to end: labelled images -> an ordinary checkpoint folder, resumable at any step."""

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import ceil, prod

import torch
from torch import Tensor
from transformers import BeitConfig, BeitForImageClassification
from transformers.utils import logging as transformers_logging

from beitcli import __version__
from beitcli.errors import UsageError
from beitcli.inputs.worker import shared_memory
from beitcli.model.checkpoint import open_checkpoint
from beitcli.model.classifier import PixelClassifier
from beitcli.model.cpu.heap import keep_freed_memory
from beitcli.model.preprocessing import Preprocessing
from beitcli.model.runtime import Runtime, choose_runtime
from beitcli.training.data.batches import Batches, Order
from beitcli.training.data.pixels import KeptPixels
from beitcli.training.data.preparation import (
    OVERLAP,
    TRAINING,
    VALIDATION,
    LabelledPixels,
    SplitImages,
    fingerprint,
    labelled_pixels,
    prepare,
)
from beitcli.training.loop import Environment, TrainingProgress, device_errors, train
from beitcli.training.model_card import SEEN, UNSEEN, Facts, model_card
from beitcli.training.processor import processor_of
from beitcli.training.recipes.recipe import Length, Plan
from beitcli.training.work_dir import IMAGES, WorkDir, work_errors

log = logging.getLogger(__name__)

_COMPILED = "TORCHINDUCTOR_CACHE_DIR"

_BATCH_SIZE = 64
"""Batch size of the validation."""


@dataclass(frozen=True, slots=True)
class Resources:
    """Runtime of a training, and the number of processes that make its batches."""

    runtime: Runtime
    workers: int


def training_runtime(device: str, dtype: str) -> Runtime:
    """The runtime as at inference, but with bf16 where a GPU has it: gradients need its range.

    Raises UsageError for a device and dtype that cannot train.
    """
    runtime = choose_runtime(device, dtype)
    if runtime == Runtime("cpu", "fp16"):
        raise UsageError("`dtype=fp16`: gradients in fp16 need a GPU", "leave it out, or `dtype=bf16`")
    if runtime.device.startswith("cuda") and torch.cuda.device_count() > 1:  # the Trainer would use every one
        raise UsageError(
            f"training takes one GPU, and this process sees {torch.cuda.device_count()}",
            "set CUDA_VISIBLE_DEVICES to the number of one before torch starts",
        )
    is_auto = dtype == "auto" and runtime.device.startswith("cuda")
    if is_auto and torch.cuda.is_bf16_supported(including_emulation=False):
        return replace(runtime, dtype="bf16")
    return runtime


@dataclass(frozen=True, slots=True)
class Training:
    """Plan, images and work directory of a training; `command` is the command line."""

    plan: Plan
    images: SplitImages
    work: WorkDir
    command: str


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Training and validation images; `overlap` validation images are training images, too."""

    training: LabelledPixels
    validation: LabelledPixels
    overlap: int


def read_images(training: Training, on_progress: Callable[[int], object]) -> TrainingData:
    """The pixels, prepared by an earlier run or read now.

    `on_progress` is called with the number of images read since the last call. Raises UsageError where the images are
    not fit for training, or an earlier run had other settings.
    """
    plan, images, work = training.plan, training.images, training.work
    preprocessings = {TRAINING: plan.training_preprocessing, VALIDATION: plan.preprocessing}
    reader = images.reader
    reading = {"max_pixels": reader.decoding.max_pixels, "fast_decode": reader.fast}
    settings = {
        "version of beit": __version__,
        **plan.settings(),
        **reading,
        IMAGES: fingerprint(images.split),
    }
    prepared = work.begun(settings)
    if prepared is None:
        try:
            prepared = prepare(work, images, preprocessings, on_progress)
            work.begin(settings, prepared)
        except BaseException:
            work.remove()
            raise
    else:
        log.info("going on with the training in `%s`", work.folder)
    train_part, validation_part = (
        labelled_pixels(work, name, images, preprocessings[name], prepared[name]) for name in preprocessings
    )
    return TrainingData(train_part, validation_part, prepared[OVERLAP])


def train_model(
    training: Training,
    data: TrainingData,
    resources: Resources,
    on_progress: Callable[[TrainingProgress], object],
    on_validated: Callable[[int, int], object],
) -> Facts:
    """Trains, or resumes, and writes the folder; the result is the content of its card.

    `on_validated` is called with the number of images validated, from 0, and that of all. Raises as `loop.train` does.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    keep_freed_memory()
    plan, classes, runtime = training.plan, training.images.split.classes, resources.runtime
    order = Order(len(data.training.targets), plan.batch_size, plan.epochs, plan.seed)
    with device_errors(runtime.device, training.work.folder):
        length = Length(ceil(len(order) / plan.accumulate), order.size * plan.accumulate)
        method = plan.method(classes, runtime, length)
    batches = Batches(data.training.pixels, torch.tensor(data.training.targets), method.augment, order)
    is_cheap = isinstance(data.training.pixels, KeptPixels) and runtime.device == "cpu"  # training uses all cores
    numbers = order.size * prod(plan.preprocessing.shape)
    workers = 0 if is_cheap else min(resources.workers, _max_workers(numbers, plan.accumulate))
    environment = Environment(training.work.folder, runtime.device, runtime.dtype, workers)
    with _compiled_in(os.path.abspath(training.work.path("compiled"))):  # removed with the work directory
        trained = train(method, batches, environment, on_progress)
    folder = training.work.path("model")
    _save(method.network.config, trained.weights, plan.preprocessing, folder)
    facts = Facts(
        command=training.command,
        description=method.description,
        classes=classes,
        trained_on=len(data.training.targets),
        ranks=_ranks(folder, data.validation, plan.preprocessing, runtime.device, on_validated),
        held_out=UNSEEN if not data.overlap else SEEN.format(data.overlap),
        seed=plan.seed,
        seconds=trained.seconds,
    )
    training.work.finish(folder, model_card(os.path.basename(training.work.out), facts))
    return facts


@contextmanager
def _compiled_in(folder: str) -> Iterator[None]:
    """Let torch keep in `folder` what it compiles inside; compiled later, it would make the folder anew."""
    before = os.environ.get(_COMPILED)
    os.environ[_COMPILED] = folder
    try:
        yield
    finally:
        if before is None:
            del os.environ[_COMPILED]
        else:
            os.environ[_COMPILED] = before


def _max_workers(numbers: int, accumulate: int) -> int:
    """The number of workers whose batches, of so many float32 numbers, fit into shared memory.

    Each worker prefetches two, torch's default, and the Trainer holds those of two steps.
    """
    return max(0, (shared_memory() // (4 * numbers) - 2 * accumulate) // 2)


def _save(config: BeitConfig, weights: dict[str, Tensor], preprocessing: Preprocessing, folder: str) -> None:
    """Writes an ordinary checkpoint: config, weights and image processor."""
    network = BeitForImageClassification(config)
    network.load_state_dict(weights)
    with work_errors():
        network.save_pretrained(folder)
        processor_of(preprocessing).save_pretrained(folder)
        # safetensors lets only the owner read it
        shutil.copymode(os.path.join(folder, "config.json"), os.path.join(folder, "model.safetensors"))


def _ranks(
    folder: str,
    part: LabelledPixels,
    preprocessing: Preprocessing,
    device: str,
    on_validated: Callable[[int, int], object],
) -> list[int]:
    """The rank, from 0, of each image's true class in the saved model's predictions."""
    on_validated(0, len(part.targets))
    classifier = PixelClassifier(open_checkpoint(folder, None), preprocessing, Runtime(device, "fp32"), 0, _BATCH_SIZE)
    ranks = []
    for start in range(0, len(part.targets), _BATCH_SIZE):
        targets = part.targets[start : start + _BATCH_SIZE]
        predictions = classifier(part.pixels[range(start, start + len(targets))])
        for target, scores in zip(targets, predictions, strict=True):
            ranks.append([score.index for score in scores].index(target))
        on_validated(len(ranks), len(part.targets))
    return ranks
