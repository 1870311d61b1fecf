"""Everything in order: labelled pictures -> an ordinary checkpoint folder, in as many runs as it takes."""

import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil

import torch
from torch import Tensor
from transformers import BeitConfig, BeitForImageClassification
from transformers.utils import logging as reports

from beitcli.errors import UsageError
from beitcli.model.checkpoint import open_checkpoint
from beitcli.model.classifier import Classifier
from beitcli.model.recipe import Recipe
from beitcli.model.runtime import Runtime, choose_runtime
from beitcli.training.batches import Batches, Order
from beitcli.training.card import UNSEEN, Facts, model_card
from beitcli.training.examples import Split
from beitcli.training.loop import Pace, Place, train
from beitcli.training.method import Plan
from beitcli.training.pixels import KeptPixels
from beitcli.training.preparation import Part, fingerprint, part_of, prepare
from beitcli.training.processor import processor_of
from beitcli.training.workplace import PICTURES, Workplace, work_errors

log = logging.getLogger(__name__)

_AT_ONCE = 64
"""Pictures that are validated at a time."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a training runs, how many processes decode for it, and how many pictures they may fail at."""

    device: str
    dtype: str
    workers: int
    most_errors: int


def train_model(
    plan: Plan, split: Split, work: Workplace, machine: Machine, command: str, tell: Callable[[Pace], None]
) -> Facts:
    """Trains, writes the folder, and gives back what its card says. Where it was begun before, it goes on.

    Raises Stopped, behind a checkpoint, where the process is asked to end.
    """
    reports.set_verbosity_error()
    reports.disable_progress_bar()
    runtime = _runtime(machine)
    learning, validation = _prepared(plan, split, work, machine)
    order = Order(len(learning.targets), plan.batch_size, plan.epochs, plan.seed)
    method = plan.method(split.classes, runtime.device, ceil(len(order) / plan.accumulate))
    batches = Batches(learning.pixels, torch.tensor(learning.targets), method.augment, order)
    workers = 0 if isinstance(learning.pixels, KeptPixels) else machine.workers
    trained = train(method, batches, Place(work.folder, runtime.device, runtime.dtype, workers), tell)
    folder = work.path("model")
    _save(method.network.config, trained.weights, plan.recipe, folder)
    ranks = _ranks(folder, validation, plan.recipe, runtime.device)
    facts = Facts(command, method.text, split.classes, len(learning.targets), ranks, UNSEEN, plan.seed, trained.seconds)
    with work_errors(), open(os.path.join(folder, "README.md"), "w", encoding="utf-8") as stream:
        stream.write(model_card(os.path.basename(work.out), facts))
    work.finish(folder)
    return facts


def _prepared(plan: Plan, split: Split, work: Workplace, machine: Machine) -> tuple[Part, Part]:
    """What is learnt from and what is validated with, as an earlier run has prepared it or read now."""
    recipes = {"training": plan.learning_recipe, "validation": plan.recipe}
    settings = {**plan.settings(), PICTURES: fingerprint(split)}
    prepared = work.begun(settings)
    if prepared is None:
        try:
            prepared = prepare(work, split, recipes, machine.workers, machine.most_errors)
            work.begin(settings, prepared)
        except BaseException:
            work.leave()
            raise
    else:
        log.info("going on with the training in `%s`", work.folder)
    return (
        part_of(work, "training", split.training, prepared["training"], recipes["training"]),
        part_of(work, "validation", split.validation, prepared["validation"], recipes["validation"]),
    )


def _runtime(machine: Machine) -> Runtime:
    """As for a model that answers; but gradients want the range of bf16 where a GPU has it."""
    runtime = choose_runtime(machine.device, machine.dtype)
    if runtime == Runtime("cpu", "fp16"):
        raise UsageError("--dtype fp16: gradients in fp16 need a GPU", "leave it out, or --dtype bf16")
    if machine.dtype == "auto" and runtime.device.startswith("cuda") and torch.cuda.is_bf16_supported():
        return replace(runtime, dtype="bf16")
    return runtime


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
