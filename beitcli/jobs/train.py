"""Training: a linear probe, fine-tuning, or a new model from scratch; resumable, and written complete or not at all."""

import importlib.util
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from beitcli.errors import UsageError
from beitcli.gallery.items import Gallery
from beitcli.jobs.engine import open_beit, workers_for
from beitcli.jobs.gallery import item_of
from beitcli.jobs.gallery_page import write_page
from beitcli.jobs.observer import Observer
from beitcli.jobs.probe import train_probe
from beitcli.jobs.training_requests import TrainingRequest
from beitcli.jobs.validation import Validator
from beitcli.model.checkpoint import Checkpoint
from beitcli.outputs.lock import exclusive
from beitcli.records import Prediction, Score, Source, printable
from beitcli.training.data.examples import Split

if TYPE_CHECKING:
    from beitcli.training.data.preparation import SplitImages
    from beitcli.training.model_card import Facts
    from beitcli.training.recipes.recipe import LabelledPlan

EPOCHS = 30
"""Default number of epochs."""

_TOP = 5  # an image whose true label is among so many is nearly correct


@dataclass(frozen=True, slots=True)
class Trained:
    """The folder of the model, the facts of its card, and of a probe its strength and the layer it was asked for."""

    out: str
    facts: "Facts"
    strength: float | None = None
    layer: int | None = None


def train(request: TrainingRequest, observer: Observer) -> Trained:
    """Train as requested, going on from where an earlier run of the request was stopped.

    A training of all layers runs on one device, and uses the first GPU that this process sees. Raises UsageError for
    options, images or a model that do not fit, OutputError where nothing can be written, DeviceError where memory does
    not suffice.
    """
    request.check()
    if request.recipe.is_probe:
        return Trained(request.work.out, *train_probe(request, observer))
    if importlib.util.find_spec("accelerate") is None:
        raise UsageError("training needs the extra `train`", "pip install 'beitcli[train]'")
    checkpoint = open_beit(request.model) if request.recipe.finetune else None
    split = request.images.split(request.walk, request.recipe.seed)
    return Trained(request.work.out, _train_layers(request, checkpoint, split, observer))


def show_validated(trained: Trained, page: str, request: TrainingRequest, observer: Observer) -> None:
    """Write a page of the validated images with their true labels. Raises OutputError where it cannot be written."""
    from beitcli.evaluation.metrics import LabelledPrediction, measure
    from beitcli.gallery.accuracy import shown

    facts = trained.facts
    items, predictions = [], []
    for each in facts.validated:
        best = Score(facts.classes[each.predicted], each.predicted, each.confidence)
        item = item_of(Prediction(Source.named(each.path), (best,)), facts.classes[each.true])
        items.append(item)
        is_near = 0 < each.rank < _TOP
        best_five = (each.predicted, each.true) if is_near else (each.predicted,)
        predictions.append(LabelledPrediction(item.source, each.true, best_five, each.confidence))
    about = [("model", printable(trained.out)), ("images", f"{len(items)} {facts.held_out}")]
    figures = shown(measure(predictions, facts.classes))
    title = printable(os.path.basename(trained.out))
    gallery = Gallery(title, items, facts.classes, about, figures)
    write_page(gallery, page, request.limits, request.compute, observer)


def _train_layers(request: TrainingRequest, checkpoint: Checkpoint | None, split: Split, observer: Observer) -> "Facts":
    """Fine-tune, or train from scratch."""
    observer.stage("reading", len(split.training) + len(split.validation))
    from beitcli.training.train import Resources, Training, read_images, train_model, training_runtime

    resources = Resources(training_runtime(request.compute.device, request.compute.dtype), workers_for(request.compute))
    images = _images(request, split, resources.workers)
    training = Training(_plan(request, checkpoint, split.classes), images, request.work, request.command)
    with exclusive(request.work.out, wait=False):
        data = read_images(training, observer.progress)
        observer.stage("training", unit="steps")
        validator = Validator(request.limits, request.compute, observer)
        return train_model(training, data, resources, observer.step, validator)


def _images(request: TrainingRequest, split: Split, workers: int) -> "SplitImages":
    from beitcli.training.data.pixels import PixelReader
    from beitcli.training.data.preparation import SplitImages

    limits = request.limits
    reader = PixelReader(workers, limits.decoding(digest=False), limits.fetching(), limits.fast_decode)
    return SplitImages(split, reader, request.images.max_errors)


def _plan(request: TrainingRequest, checkpoint: Checkpoint | None, classes: tuple[str, ...]) -> "LabelledPlan":
    from beitcli.training.recipes.finetune import FinetunePlan, check_weights
    from beitcli.training.recipes.narrow_finetune import is_narrow_encoder
    from beitcli.training.recipes.scratch import RATE, ScratchPlan

    recipe, model, compute = request.recipe, request.model, request.compute
    if checkpoint:
        check_weights(checkpoint, classes)  # fail now rather than after reading the images
        if is_narrow_encoder(checkpoint):
            return _narrow_plan(request, checkpoint)
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


def _narrow_plan(request: TrainingRequest, checkpoint: Checkpoint) -> "LabelledPlan":
    from beitcli.training.recipes.narrow_finetune import NarrowFinetunePlan

    recipe = request.recipe
    if recipe.checkpoint_gradients:
        hint = "leave it out: `accumulate=` saves memory, too"
        raise UsageError(f"`checkpoint_gradients=True`: `{checkpoint.name}` is too small to need it", hint)
    return NarrowFinetunePlan(
        checkpoint=checkpoint,
        image_size=request.model.image_size,
        epochs=recipe.epochs or EPOCHS,
        batch_size=recipe.batch_size or 32,
        accumulate=recipe.accumulate or 1,
        rate=recipe.lr,
        seed=recipe.seed,
        dtype=request.compute.dtype,
    )
