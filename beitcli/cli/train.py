"""`beit train`: a model for the user's own classes."""

import importlib.util
import os
import shlex
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from beitcli.cli import notices
from beitcli.cli.options import Without, examples, with_options
from beitcli.cli.training_options import ImageOptions, RecipeOptions
from beitcli.errors import UsageError
from beitcli.jobs.engine import open_beit, workers_for
from beitcli.jobs.probe import Probe, train_probe
from beitcli.jobs.requests import Compute, Inputs, Limits, ModelChoice, Request
from beitcli.model.checkpoint import Checkpoint
from beitcli.outputs.lock import exclusive
from beitcli.records import printable
from beitcli.training.data.examples import Split
from beitcli.training.work_dir import WorkDir

if TYPE_CHECKING:
    from beitcli.training.data.preparation import Images
    from beitcli.training.recipes.recipe import Plan
    from beitcli.training.train import Machine, Training

EXAMPLES = examples(
    "beit train ./flowers -m base-224 --out my-flowers",
    "beit train ./flowers --finetune -m base-224 --out my-better-flowers",
    "beit train cifar/train --from-scratch small --val cifar/test --out my-model",
    "beit classify photo.jpg -m ./my-flowers",
)

EPOCHS = 30
"""Default number of epochs."""


@with_options
def train(
    context: typer.Context,
    images: ImageOptions,
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="DIR", help="Folder of the model, written complete or not at all.")
    ],
    recipe: RecipeOptions,
    inputs: Annotated[Inputs, Without("inputs", "files_from", "null")],
    limits: Limits,
    model: Annotated[ModelChoice, Without("preprocess")],
    compute: Annotated[Compute, Without("batch_size", "fp16", "compile")],
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No notices or progress; errors only.", show_default=False)
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Report the chosen settings.", show_default=False)
    ] = False,
) -> None:
    """Train a model for your own classes: a linear probe of --model, or with --finetune or --from-scratch all layers.

    The same command resumes a training that was stopped.
    """
    notices.set_up(quiet, verbose)
    walk = inputs.walk()
    images.check(walk)
    recipe.check(model.image_size or 32)
    compute.check()
    if recipe.from_scratch:
        _check_no_model_named(context, model)
    work = WorkDir(out.rstrip("/") or out)
    work.check()
    images.check_place(work.out)
    command = _command(context, model)
    if recipe.is_probe:
        request = Request(inputs, limits, model, replace(compute, batch_size=recipe.batch_size))
        parts, pool = images.whole(walk), recipe.pool or "mean"
        _train_probe(
            Probe(parts, request, pool, images.val_share, images.max_errors, recipe.seed, command), work, quiet
        )
        return
    if importlib.util.find_spec("accelerate") is None:
        raise UsageError("training needs the extra `train`", "pip install 'beitcli[train]'")
    checkpoint = open_beit(model) if recipe.finetune else None
    parts = images.split(walk, recipe.seed)
    device = _one_gpu(compute.device)
    from beitcli.training.train import Machine, Training, training_runtime

    machine = Machine(training_runtime(device, compute.dtype), workers_for(compute))
    read = _images(parts, limits, machine.workers, images.max_errors)
    _train(Training(_plan(recipe, model, compute, checkpoint), read, work, command), machine, quiet)


def _train_probe(probe: Probe, work: WorkDir, quiet: bool) -> None:
    with notices.observer(quiet) as observer:
        facts, strength = train_probe(probe, work, observer)
    if not quiet:
        accuracy = f"{100 * facts.accuracy(1):.2f} % of {len(facts.ranks)} images correct"
        place = printable(work.out)
        notices.print_line(
            f"{accuracy} at a strength of {strength:.3g}, {facts.seconds:.0f} s: the model is in `{place}`"
        )


def _check_no_model_named(context: typer.Context, model: ModelChoice) -> None:
    source = context.get_parameter_source("model")
    if model.revision or (source and source.name == "COMMANDLINE"):
        raise UsageError("--from-scratch takes no --model or --revision", "leave them out, or use --finetune")


def _images(parts: Split, limits: Limits, workers: int, most_errors: int) -> "Images":
    from beitcli.training.data.pixels import Reader
    from beitcli.training.data.preparation import Images

    reader = Reader(workers, limits.decoding(digest=False), limits.fetching(), limits.fast_decode)
    return Images(parts, reader, most_errors)


def _command(context: typer.Context, model: ModelChoice) -> str:
    """The command line, with the model from the environment."""
    source = context.get_parameter_source("model")
    named = ["--model", model.model] if source and source.name == "ENVIRONMENT" else []
    return shlex.join(["beit", *sys.argv[1:], *named])


def _train(training: "Training", machine: "Machine", quiet: bool) -> None:
    """Fine-tune, or train from scratch."""
    from beitcli.training.train import read_images, train_model

    work = training.work
    with exclusive(work.out, wait=False):
        with notices.progress(quiet) as progress:
            material = read_images(training, progress.update)
        with notices.training_progress(quiet) as on_progress:
            facts = train_model(training, material, machine, on_progress)
    if not quiet:
        accuracy = f"{100 * facts.accuracy(1):.2f} % of {len(facts.ranks)} images correct"
        notices.print_line(f"{accuracy}: the model is in `{printable(work.out)}`")


def _plan(recipe: RecipeOptions, model: ModelChoice, compute: Compute, checkpoint: Checkpoint | None) -> "Plan":
    from beitcli.training.recipes.finetune import FinetunePlan
    from beitcli.training.recipes.scratch import RATE, ScratchPlan

    if checkpoint:
        checkpoint.tensors()  # fail now rather than after reading the images
        return FinetunePlan(
            checkpoint=checkpoint,
            image_size=model.image_size,
            epochs=recipe.epochs or EPOCHS,
            batch_size=recipe.batch_size or 32,
            accumulate=recipe.accumulate or 1,
            rate=recipe.lr,
            checkpoint_gradients=recipe.checkpoint_gradients,
            seed=recipe.seed,
            dtype=compute.dtype,
        )
    return ScratchPlan(
        shape=recipe.from_scratch or "small",
        image_size=model.image_size or 32,
        patch_size=recipe.patch_size or 4,
        epochs=recipe.epochs or EPOCHS,
        batch_size=recipe.batch_size or 256,
        accumulate=recipe.accumulate or 1,
        rate=recipe.lr or RATE,
        seed=recipe.seed,
        dtype=compute.dtype,
    )


def _one_gpu(device: str) -> str:
    """Name of the device; hides all other GPUs from torch, as the Trainer would use every one."""
    if device == "auto" or device.startswith("cuda"):
        number, hidden = int(device.partition(":")[2] or 0), os.environ.get("CUDA_VISIBLE_DEVICES")
        if hidden == "":
            return device.partition(":")[0]
        visible = hidden.split(",") if hidden else []
        if visible and number >= len(visible):
            raise UsageError(f"--device {device}: CUDA_VISIBLE_DEVICES is `{hidden}`", f"cuda:0 is GPU {visible[0]}")
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[number] if visible else str(number)
    return device.partition(":")[0]
