"""Pre-training: images without labels -> an encoder; resumable, and written complete or not at all."""

import importlib.util
import logging
import os
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from beitcli.errors import UsageError
from beitcli.jobs.discovery import find
from beitcli.jobs.engine import open_beit, workers_for
from beitcli.jobs.observer import Observer
from beitcli.jobs.pretraining_requests import DALLE, DEFAULT_VOCABULARY, KMEANS, Pretraining, PretrainingRequest
from beitcli.model.checkpoint import Checkpoint
from beitcli.outputs.lock import exclusive
from beitcli.records import Found, Skipped, printable
from beitcli.training.data.examples import Example, Split

if TYPE_CHECKING:
    from beitcli.training.data.preparation import SplitImages
    from beitcli.training.pretraining.encoder_card import PretrainingFacts
    from beitcli.training.pretraining.initial_networks import Geometry
    from beitcli.training.pretraining.plan import PretrainPlan
    from beitcli.training.pretraining.pretrain import NewCodebook
    from beitcli.training.pretraining.tokenizers.protocol import Tokenizer

log = logging.getLogger(__name__)

EPOCHS = 30
"""Default number of epochs."""

_HELD_OUT = 0.1
"""Share of the images that is held out, up to a number that suffices."""


@dataclass(frozen=True, slots=True)
class Pretrained:
    """The folder of the model, and the facts of its card."""

    out: str
    facts: "PretrainingFacts"


def pretrain(request: PretrainingRequest, observer: Observer) -> Pretrained:
    """Pre-train as requested, going on from where an earlier run of the request was stopped.

    On one device, as `train` does it with all layers. Raises UsageError for options, images, a model or a tokenizer
    that do not fit, OutputError where nothing can be written, ModelError where a model or a tokenizer cannot be had.
    """
    request.check()
    if importlib.util.find_spec("accelerate") is None:
        raise UsageError("training needs the extra `train`", "pip install 'beitcli[train]'")
    start = request.recipe.start
    checkpoint = open_beit(start) if start else None
    skipped = Skipped()
    found = list(find(request.inputs, skipped))
    if skipped:
        log.info("skipped: %s", skipped.text())
    observer.stage("reading", len(found))
    from beitcli.training.pretraining.pretrain import pretrain_model
    from beitcli.training.train import Resources, Training, read_images, training_runtime

    resources = Resources(training_runtime(request.compute.device, request.compute.dtype), workers_for(request.compute))
    tokenizer = _tokenizer(request.recipe, checkpoint)
    plan = _plan(request, checkpoint, tokenizer)
    training = Training(plan, _images(request, found, resources.workers), request.work, request.command)
    with exclusive(request.work.out, wait=False):
        data = read_images(training, observer.progress)
        observer.stage("training", unit="steps")
        facts = pretrain_model(training, data, resources, tokenizer, observer.step)
    return Pretrained(request.work.out, facts)


def _images(request: PretrainingRequest, found: list[Found], workers: int) -> "SplitImages":
    """The images, some of them held out; all have one and the same label."""
    from beitcli.training.data.pixels import PixelReader
    from beitcli.training.data.preparation import SplitImages
    from beitcli.training.pretraining.held_out import MAX_HELD_OUT

    if len(found) < 2:
        raise UsageError("there is one image: none can be held out", "add images")
    count = min(MAX_HELD_OUT, max(1, round(_HELD_OUT * len(found))))
    rng = random.Random(f"{request.recipe.seed} held out")  # noqa: S311  # nothing secret
    chosen = sorted(rng.sample(range(len(found)), count))
    kept = sorted(set(range(len(found))) - set(chosen))
    training, held_out = (tuple(Example(found[number], 0) for number in part) for part in (kept, chosen))
    limits = request.limits
    reader = PixelReader(workers, limits.decoding(digest=False), limits.fetching(), limits.fast_decode)
    return SplitImages(Split((), training, held_out), reader, request.recipe.max_errors)


def _tokenizer(recipe: Pretraining, checkpoint: Checkpoint | None) -> "Tokenizer | NewCodebook":
    """The tokenizer asked for; without a wish that of the model that is continued, or a new codebook."""
    from beitcli.training.pretraining.pretrain import NewCodebook
    from beitcli.training.pretraining.tokenizers.dalle import HUB_ID, open_encoder
    from beitcli.training.pretraining.tokenizers.protocol import TOKENIZER
    from beitcli.training.pretraining.tokenizers.saved import open_tokenizer

    own = _own_tokenizer(checkpoint)
    if recipe.tokenizer is None and recipe.vocab is None and own:
        return open_tokenizer(own)
    if recipe.tokenizer in (None, KMEANS):
        return NewCodebook(recipe.vocab or DEFAULT_VOCABULARY)
    if recipe.tokenizer == DALLE:
        return open_encoder(HUB_ID)
    saved = os.path.join(recipe.tokenizer, TOKENIZER)
    return open_tokenizer(saved) if os.path.isfile(saved) else open_encoder(recipe.tokenizer)


def _own_tokenizer(checkpoint: Checkpoint | None) -> str | None:
    """The file of the tokenizer whose tokens the checkpoint has learnt, where it has one."""
    from beitcli.training.pretraining.tokenizers.protocol import TOKENIZER

    if checkpoint is None or checkpoint.repository.on_hub:
        return None
    return checkpoint.repository.file(TOKENIZER)


def _plan(
    request: PretrainingRequest, checkpoint: Checkpoint | None, tokenizer: "Tokenizer | NewCodebook"
) -> "PretrainPlan":
    from beitcli.training.pretraining.initial_networks import SHAPES, Geometry, shape_of_encoder
    from beitcli.training.pretraining.masks import PAPER_SHARE
    from beitcli.training.pretraining.plan import PretrainPlan
    from beitcli.training.pretraining.pretrain import NewCodebook

    recipe = request.recipe
    if checkpoint:
        geometry = Geometry(recipe.image_size or checkpoint.image_side, checkpoint.patch_side)
    else:
        geometry = Geometry(*recipe.new_geometry)
    shape = shape_of_encoder(checkpoint) if checkpoint else SHAPES[recipe.new_size]
    if isinstance(tokenizer, NewCodebook):
        tokens, keeps_head = f"a new codebook of {tokenizer.vocabulary}", False
    else:
        _check_grid(tokenizer, geometry, recipe)
        tokens, keeps_head = tokenizer.digest, _knows(checkpoint, tokenizer)
    return PretrainPlan(
        size=None if checkpoint else recipe.new_size,
        shape=shape,
        checkpoint=checkpoint,
        geometry=geometry,
        tokens=tokens,
        keeps_head=keeps_head,
        mask=recipe.mask or PAPER_SHARE,
        epochs=recipe.epochs or EPOCHS,
        batch_size=recipe.batch_size or (256 if shape.is_narrow else 64),
        accumulate=recipe.accumulate or 1,
        rate=recipe.lr,
        seed=recipe.seed,
        dtype=request.compute.dtype,
    )


def _check_grid(tokenizer: "Tokenizer", geometry: "Geometry", recipe: Pretraining) -> None:
    if tokenizer.grid not in (None, geometry.grid):
        raise UsageError(
            f"`{printable(recipe.tokenizer or recipe.model or '')}` has tokens for {tokenizer.grid} × {tokenizer.grid} "
            f"patches, and images of {geometry.image} pixels have {geometry.grid} × {geometry.grid}",
            "another `image_size=` or `patch_size=`, or a new codebook: `tokenizer=kmeans`",
        )


def _knows(checkpoint: Checkpoint | None, tokenizer: "Tokenizer") -> bool:
    """True if the checkpoint's head predicts the tokens of this tokenizer: its own, or DALL-E's for a published one."""
    from beitcli.training.pretraining.tokenizers.dalle import DalleTokenizer
    from beitcli.training.pretraining.tokenizers.saved import open_tokenizer

    if checkpoint is None:
        return False
    own = _own_tokenizer(checkpoint)
    if own:
        return open_tokenizer(own).digest == tokenizer.digest
    published = checkpoint.is_pretrained_only and checkpoint.config.get("vocab_size", 8192) == tokenizer.vocabulary
    return published and isinstance(tokenizer, DalleTokenizer)
