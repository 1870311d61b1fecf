"""Everything in order: labelled pictures -> an ordinary checkpoint folder, in as many runs as it takes."""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import BeitForImageClassification
from transformers.models.beit.image_processing_pil_beit import BeitImageProcessorPil
from transformers.utils import logging as reports

from beitcli.model.checkpoint import open_checkpoint
from beitcli.model.classifier import Classifier
from beitcli.model.compiled import can_compile
from beitcli.model.recipe import Recipe
from beitcli.model.runtime import Runtime, choose_runtime
from beitcli.training import scratch
from beitcli.training.batches import Batches
from beitcli.training.card import Facts, model_card
from beitcli.training.examples import Split
from beitcli.training.loop import Arguments, Pace, train
from beitcli.training.preparation import Part, fingerprint, part_of, prepare
from beitcli.training.shapes import SCRATCH_SHAPES
from beitcli.training.workplace import Workplace, work_errors

log = logging.getLogger(__name__)

WORTH_COMPILING = 500
"""Steps from which on a training repays the minute that compiling its layers takes."""

_VALIDATED_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a training runs, and what may go wrong on the way to it."""

    device: str
    dtype: str
    workers: int
    most_errors: int


@dataclass(frozen=True, slots=True)
class ScratchPlan:
    """What a training from random weights is asked for."""

    shape: str
    image_size: int
    patch_size: int
    epochs: int
    batch_size: int
    rate: float
    seed: int


def train_from_scratch(
    plan: ScratchPlan, split: Split, work: Workplace, machine: Machine, command: str, tell: Callable[[Pace], None]
) -> Facts:
    """Trains, writes the folder, and gives back what is in its card. Begun before, it goes on."""
    started = time.monotonic()
    reports.set_verbosity_error()
    reports.disable_progress_bar()
    recipe = scratch.scratch_recipe(plan.image_size)
    learning, validation = _prepared(plan, split, work, {"training": recipe, "validation": recipe}, machine)
    runtime = choose_runtime(machine.device, machine.dtype)
    network = scratch.new_network(
        SCRATCH_SHAPES[plan.shape], plan.image_size, plan.patch_size, split.classes, plan.seed
    )
    augment = scratch.ScratchAugment(len(split.classes))
    batch_size = min(plan.batch_size, len(learning.targets))
    batches = Batches(
        learning.pixels, torch.tensor(learning.targets), augment, batch_size, plan.epochs, plan.seed
    )
    if runtime.device != "mps" and len(batches) >= WORTH_COMPILING and can_compile():
        network.compile_layers()
    optimiser = scratch.optimiser_for(network.to(runtime.device), plan.rate)
    arguments = Arguments(work.folder, runtime.device, runtime.dtype, 0, tell)
    weights = train(network, optimiser, batches, scratch.SCHEDULE, arguments)
    plain = BeitForImageClassification(network.config)
    plain.load_state_dict(weights)
    folder = work.path("model")
    _save(plain, recipe, folder)
    top1, top5 = _validated(folder, validation, recipe, runtime.device)
    facts = Facts(
        command,
        "A BEiT trained from random weights.",
        "",
        split.classes,
        len(learning.targets),
        len(validation.targets),
        top1,
        top5,
        plan.seed,
        time.monotonic() - started,
    )
    with work_errors(), open(os.path.join(folder, "README.md"), "w", encoding="utf-8") as stream:
        stream.write(model_card(os.path.basename(work.out), facts))
    work.finish(folder)
    return facts


def _prepared(
    plan: ScratchPlan, split: Split, work: Workplace, recipes: dict[str, Recipe], machine: Machine
) -> tuple[Part, Part]:
    """What is learnt from and what is validated with, as an earlier run has prepared it or read now."""
    settings = {**_settings(plan), "pictures": fingerprint(split)}
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


def _settings(plan: ScratchPlan) -> dict[str, Any]:
    return {name: getattr(plan, name) for name in plan.__slots__}


def _save(network: BeitForImageClassification, recipe: Recipe, folder: str) -> None:
    """Writes an ordinary checkpoint: config, weights and image processor."""
    height, width = recipe.size
    with work_errors():
        network.save_pretrained(folder)
        processor = BeitImageProcessorPil(
            size={"height": height, "width": width},
            resample=recipe.resample,
            do_center_crop=False,
            image_mean=list(recipe.mean),
            image_std=list(recipe.std),
        )
        processor.save_pretrained(folder)


def _validated(folder: str, part: Part, recipe: Recipe, device: str) -> tuple[float, float]:
    """The shares of pictures whose class the saved model names first, and among its first five."""
    classifier = Classifier(open_checkpoint(folder, None), recipe, Runtime(device, "fp32"), 5, _VALIDATED_AT_ONCE)
    first = among = 0
    for start in range(0, len(part.targets), _VALIDATED_AT_ONCE):
        targets = part.targets[start : start + _VALIDATED_AT_ONCE]
        answers = classifier(part.pixels[range(start, start + len(targets))])
        for target, scores in zip(targets, answers, strict=True):
            first += scores[0].index == target
            among += target in [score.index for score in scores]
    return first / len(part.targets), among / len(part.targets)
