"""Training from start to end: labelled images -> an ordinary checkpoint folder, resumable at any step."""

import importlib.util
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from math import ceil
from typing import Generic, TypeVar

import torch
from transformers import BeitForImageClassification, BeitPreTrainedModel
from transformers.utils import logging as transformers_logging

from beitcli import __version__
from beitcli.errors import UsageError
from beitcli.file_system import share_mode
from beitcli.inputs.worker import can_start_workers, shared_memory
from beitcli.model.cpu.heap import keep_freed_memory
from beitcli.model.preprocessing import Preprocessing
from beitcli.model.runtime import Runtime, choose_runtime
from beitcli.training.curve import CURVE, CurveFile, LabelledSample, Sample
from beitcli.training.data.batches import Batches, Order
from beitcli.training.data.pixels import KeptPixels
from beitcli.training.data.preparation import (
    AMBIGUOUS,
    OVERLAP,
    TRAINING,
    VALIDATION,
    LabelledPixels,
    SplitImages,
    fingerprint,
    labelled_pixels,
    prepare,
)
from beitcli.training.digests import DIGESTS
from beitcli.training.loop import Environment, TrainingProgress, TrainingResult, device_errors, train
from beitcli.training.model_card import AS_EVALUATED, SEEN, UNSEEN, Facts, model_card
from beitcli.training.processor import processor_of
from beitcli.training.recipes.recipe import LabelledPlan, Length, Method, Plan
from beitcli.training.settings import IMAGES
from beitcli.training.validation import Validate, validated_images, write_table
from beitcli.training.work_dir import WorkDir, work_errors

log = logging.getLogger(__name__)

PLOT = "training.png"

_COMPILED = "TORCHINDUCTOR_CACHE_DIR"


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


AnyPlan = TypeVar("AnyPlan", bound=Plan, covariant=True)


@dataclass(frozen=True, slots=True)
class Training(Generic[AnyPlan]):
    """Plan, images and work directory of a training; `command` is the command line."""

    plan: AnyPlan
    images: SplitImages
    work: WorkDir
    command: str


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Training and validation images.

    `overlap` validation images are training images, too, and `ambiguous` training images stand in several classes.
    """

    training: LabelledPixels
    validation: LabelledPixels
    overlap: int
    ambiguous: int


def read_images(training: Training[AnyPlan], on_progress: Callable[[int], object]) -> TrainingData:
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
    return TrainingData(train_part, validation_part, prepared[OVERLAP], prepared.get(AMBIGUOUS, 0))


@dataclass(frozen=True, slots=True)
class Fitted:
    """A method that has ended: the weights, and how long the training was."""

    method: Method
    length: Length
    result: TrainingResult


def fit(
    training: Training[AnyPlan],
    data: TrainingData,
    resources: Resources,
    method_for: Callable[[Length], Method],
    on_progress: Callable[[TrainingProgress], object],
    sample: Sample,
) -> Fitted:
    """Run the method for these images to its end, or go on with it. Raises as `loop.train` does."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    keep_freed_memory()
    plan, runtime = training.plan, resources.runtime
    order = Order(len(data.training.targets), plan.batch_size, plan.epochs, plan.seed)
    with device_errors(runtime.device, training.work.folder):
        length = Length(ceil(len(order) / plan.accumulate), order.size * plan.accumulate)
        method = method_for(length)
    batches = Batches(data.training.pixels, torch.tensor(data.training.targets), method.augment, order)
    is_cheap = isinstance(data.training.pixels, KeptPixels) and runtime.device == "cpu"  # training uses all cores
    workers = 0 if is_cheap else min(resources.workers, _max_workers(batches.batch_bytes(), plan.accumulate))
    environment = Environment(training.work.folder, runtime.device, runtime.dtype, workers)
    with _compiled_in(os.path.abspath(training.work.path("compiled"))):  # removed with the work directory
        result = train(method, batches, environment, on_progress, CurveFile(training.work.path(CURVE)), sample)
    return Fitted(method, length, result)


def train_model(
    training: Training[LabelledPlan],
    data: TrainingData,
    resources: Resources,
    on_progress: Callable[[TrainingProgress], object],
    validate: Validate,
) -> Facts:
    """Train, or resume, validate the saved model, and write the folder; the result is the content of its card.

    Raises as `loop.train` and `validate` do.
    """
    plan, classes, runtime = training.plan, training.images.split.classes, resources.runtime
    sample = LabelledSample(data.validation, plan.preprocessing)
    fitted = fit(training, data, resources, lambda length: plan.method(classes, runtime, length), on_progress, sample)
    folder = training.work.path("model")
    save_model(BeitForImageClassification(fitted.method.network.config), fitted.result, plan.preprocessing, folder)
    predictions = validate(folder, [example.found for example in data.validation.examples])
    facts = Facts(
        command=training.command,
        description=fitted.method.description,
        classes=classes,
        trained_on=len(data.training.targets),
        validated=validated_images(data.validation.examples, predictions, classes),
        held_out=UNSEEN if not data.overlap else SEEN.format(data.overlap),
        measured=AS_EVALUATED.format(predictions.computed),
        ambiguous=data.ambiguous,
        seed=plan.seed,
        seconds=fitted.result.seconds,
    )
    _write_figures(training.work, facts, folder)
    write_curve(training.work, fitted.length, facts.trained_on, facts.accuracy(1), folder)
    training.work.finish(folder, model_card(os.path.basename(training.work.out), facts))
    return facts


def _write_figures(work: WorkDir, facts: Facts, folder: str) -> None:
    """Write the validated images and the digests into the model's folder."""
    write_table(facts.validated, facts.classes, folder)
    with work_errors(), suppress(FileNotFoundError):  # images that an earlier version has prepared have no digests
        shutil.copyfile(work.path(DIGESTS), os.path.join(folder, DIGESTS))


def write_curve(work: WorkDir, length: Length, images: int, accuracy: float, folder: str) -> None:
    """Write the curve into the model's folder, its last point the saved model's, and its plot with matplotlib."""
    curve = CurveFile(os.path.join(folder, CURVE))
    with work_errors():
        shutil.copyfile(work.path(CURVE), curve.path)
    curve.add(step=length.steps, epoch=length.steps * length.step_size / images, accuracy=accuracy)
    if importlib.util.find_spec("matplotlib"):
        from beitcli.training.plots import plot_curve

        with work_errors(), open(os.path.join(folder, PLOT), "wb") as stream:
            plot_curve(curve.points(), stream)


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


def _max_workers(bytes_of_batch: int, accumulate: int) -> int:
    """The number of workers whose batches fit into shared memory.

    Each worker prefetches two, torch's default, and the Trainer holds those of two steps.
    """
    if not can_start_workers():
        return 0
    return max(0, (shared_memory() // bytes_of_batch - 2 * accumulate) // 2)


def save_model(network: BeitPreTrainedModel, result: TrainingResult, preprocessing: Preprocessing, folder: str) -> None:
    """Write an ordinary checkpoint: config, the weights of the result in this network, and image processor."""
    network.load_state_dict(result.weights)
    with work_errors():
        network.save_pretrained(folder)
        processor_of(preprocessing).save_pretrained(folder)
        # safetensors lets only the owner read it
        share_mode(os.path.join(folder, "model.safetensors"), os.path.join(folder, "config.json"))
