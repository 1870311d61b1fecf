"""Everything in order: labelled pictures -> an ordinary checkpoint folder, in as many runs as it takes."""

import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil, prod

import torch
from torch import Tensor
from transformers import BeitConfig, BeitForImageClassification
from transformers.utils import logging as reports

from beitcli import __version__
from beitcli.errors import UsageError
from beitcli.inputs.worker import shared_memory
from beitcli.model.checkpoint import open_checkpoint
from beitcli.model.classifier import Classifier
from beitcli.model.memory import keep_freed_memory
from beitcli.model.recipe import Recipe
from beitcli.model.runtime import Runtime, choose_runtime
from beitcli.training.batches import Batches, Order
from beitcli.training.card import SEEN, UNSEEN, Facts, model_card
from beitcli.training.loop import Pace, Place, device_errors, train
from beitcli.training.method import Length, Plan
from beitcli.training.pixels import KeptPixels
from beitcli.training.preparation import (
    DOUBLES,
    TRAINING,
    VALIDATION,
    Part,
    Pictures,
    fingerprint,
    part_of,
    prepare,
)
from beitcli.training.processor import processor_of
from beitcli.training.workplace import PICTURES, Workplace, work_errors

log = logging.getLogger(__name__)

_AT_ONCE = 64
"""Pictures that are validated at a time."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a training runs, and how many processes make its batches."""

    runtime: Runtime
    workers: int


def training_runtime(device: str, dtype: str) -> Runtime:
    """As for a model that answers; but gradients want the range of bf16 where a GPU has it.

    Raises UsageError for what cannot train.
    """
    runtime = choose_runtime(device, dtype)
    if runtime == Runtime("cpu", "fp16"):
        raise UsageError("--dtype fp16: gradients in fp16 need a GPU", "leave it out, or --dtype bf16")
    is_free = dtype == "auto" and runtime.device.startswith("cuda")
    if is_free and torch.cuda.is_bf16_supported(including_emulation=False):
        return replace(runtime, dtype="bf16")
    return runtime


@dataclass(frozen=True, slots=True)
class Training:
    """What is trained of which pictures, and where it is until it is done; `command` is what the user has typed."""

    plan: Plan
    pictures: Pictures
    work: Workplace
    command: str


@dataclass(frozen=True, slots=True)
class Material:
    """What is learnt from and what is validated with; so many pictures of the latter are `doubles` of the former."""

    learning: Part
    validation: Part
    doubles: int


def read_pictures(training: Training, tell: Callable[[int], object]) -> Material:
    """The pixels, as an earlier run has prepared them or read now. `tell` is given how many more have been read.

    Raises UsageError where the pictures make no training, or an earlier run was another.
    """
    plan, pictures, work = training.plan, training.pictures, training.work
    recipes = {TRAINING: plan.learning_recipe, VALIDATION: plan.recipe}
    reader = pictures.reader
    reading = {"max_pixels": reader.decoding.max_pixels, "fast_decode": reader.fast}
    settings = {
        "version of beit": __version__,
        **plan.settings(),
        **reading,
        PICTURES: fingerprint(pictures.split),
    }
    prepared = work.begun(settings)
    if prepared is None:
        try:
            prepared = prepare(work, pictures, recipes, tell)
            work.begin(settings, prepared)
        except BaseException:
            work.leave()
            raise
    else:
        log.info("going on with the training in `%s`", work.folder)
    learning, validation = (part_of(work, name, pictures, recipes[name], prepared[name]) for name in recipes)
    return Material(learning, validation, prepared[DOUBLES])


def train_model(training: Training, material: Material, machine: Machine, tell: Callable[[Pace], None]) -> Facts:
    """Trains, writes the folder, and gives back what its card says. Where it was begun before, it goes on.

    Raises as `loop.train` does.
    """
    reports.set_verbosity_error()
    reports.disable_progress_bar()
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.path.abspath(training.work.path("compiled"))  # gone with the rest
    keep_freed_memory()
    plan, classes, runtime = training.plan, training.pictures.split.classes, machine.runtime
    learning = material.learning
    order = Order(len(learning.targets), plan.batch_size, plan.epochs, plan.seed)
    with device_errors(runtime.device, training.work.folder):
        length = Length(ceil(len(order) / plan.accumulate), order.size * plan.accumulate)
        method = plan.method(classes, runtime, length)
    batches = Batches(learning.pixels, torch.tensor(learning.targets), method.augment, order)
    is_cheap = isinstance(learning.pixels, KeptPixels) and runtime.device == "cpu"  # whose cores all learn
    numbers = order.size * prod(plan.recipe.shape)
    workers = 0 if is_cheap else min(machine.workers, _most_workers(numbers, plan.accumulate))
    trained = train(method, batches, Place(training.work.folder, runtime.device, runtime.dtype, workers), tell)
    folder = training.work.path("model")
    _save(method.network.config, trained.weights, plan.recipe, folder)
    facts = Facts(
        command=training.command,
        recipe=method.text,
        classes=classes,
        learnt_from=len(learning.targets),
        ranks=_ranks(folder, material.validation, plan.recipe, runtime.device),
        held_out=UNSEEN if not material.doubles else SEEN.format(material.doubles),
        seed=plan.seed,
        seconds=trained.seconds,
    )
    training.work.finish(folder, model_card(os.path.basename(training.work.out), facts))
    return facts


def _most_workers(numbers: int, accumulate: int) -> int:
    """How many processes' batches, of so many numbers of float32, find room in the shared memory.

    Each is ahead by two, as torch has it, and the Trainer holds those of two steps.
    """
    return max(0, (shared_memory() // (4 * numbers) - 2 * accumulate) // 2)


def _save(config: BeitConfig, weights: dict[str, Tensor], recipe: Recipe, folder: str) -> None:
    """Writes an ordinary checkpoint: config, weights and image processor."""
    network = BeitForImageClassification(config)
    network.load_state_dict(weights)
    with work_errors():
        network.save_pretrained(folder)
        processor_of(recipe).save_pretrained(folder)
        # safetensors lets nobody else read it
        shutil.copymode(os.path.join(folder, "config.json"), os.path.join(folder, "model.safetensors"))


def _ranks(folder: str, part: Part, recipe: Recipe, device: str) -> list[int]:
    """For each picture the place, from 0, that the saved model gives its class among all."""
    classifier = Classifier(open_checkpoint(folder, None), recipe, Runtime(device, "fp32"), 0, _AT_ONCE)
    ranks = []
    for start in range(0, len(part.targets), _AT_ONCE):
        targets = part.targets[start : start + _AT_ONCE]
        answers = classifier(part.pixels[range(start, start + len(targets))])
        for target, scores in zip(targets, answers, strict=True):
            ranks.append([score.index for score in scores].index(target))
    return ranks
