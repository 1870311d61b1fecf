"""Pre-training from start to end: images -> a checkpoint folder of masked-image modelling, resumable at any step."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

from transformers import BeitForMaskedImageModeling

from beitcli.errors import UsageError
from beitcli.file_system import replace, share_mode, sync
from beitcli.training.loop import TrainingProgress, device_errors
from beitcli.training.pretraining.encoder_card import PretrainingFacts, pretraining_card
from beitcli.training.pretraining.held_out import HeldOut
from beitcli.training.pretraining.masked_network import MaskedBeit
from beitcli.training.pretraining.plan import PretrainPlan
from beitcli.training.pretraining.tokenizers.kmeans import fit_codebook
from beitcli.training.pretraining.tokenizers.protocol import TOKENIZER, Tokenizer
from beitcli.training.pretraining.tokenizers.saved import open_tokenizer
from beitcli.training.recipes.recipe import Length, Method
from beitcli.training.train import Resources, Training, TrainingData, fit, save_model, write_curve
from beitcli.training.work_dir import work_errors

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NewCodebook:
    """A tokenizer that is still to be fitted to the images: a k-means codebook of so many tokens."""

    vocabulary: int


def pretrain_model(
    training: Training[PretrainPlan],
    data: TrainingData,
    resources: Resources,
    chosen: Tokenizer | NewCodebook,
    on_progress: Callable[[TrainingProgress], object],
) -> PretrainingFacts:
    """Pre-trains, or resumes, measures the saved network, and writes the folder; the result is the content of its card.

    Raises as `loop.train` does, and UsageError where the images are too few, or too much alike for the codebook.
    """
    plan, work, device = training.plan, training.work, resources.runtime.device
    if not data.training.examples:
        work.remove()
        raise UsageError("no image can be read")
    tokenizer = chosen if not isinstance(chosen, NewCodebook) else _codebook(training, data, chosen.vocabulary)
    with device_errors(device, work.folder):
        tokenizer = tokenizer.to(device)
    held_out = HeldOut(data.validation.pixels, plan.plain_augment(tokenizer), tokenizer, device, plan.seed)

    def method_for(length: Length) -> Method:
        return plan.method(tokenizer, resources.runtime, length)

    fitted = fit(training, data, resources, method_for, on_progress, held_out)
    folder = work.path("model")
    save_model(BeitForMaskedImageModeling(fitted.method.network.config), fitted.result, plan.preprocessing, folder)
    with work_errors():
        tokenizer.save(os.path.join(folder, TOKENIZER))
        # safetensors lets only the owner read it
        share_mode(os.path.join(folder, TOKENIZER), os.path.join(folder, "config.json"))
    with device_errors(device, work.folder):
        scores = held_out.scores(MaskedBeit.from_pretrained(folder))
    facts = PretrainingFacts(
        command=training.command,
        description=fitted.method.description,
        tokenizer=tokenizer.description,
        vocabulary=tokenizer.vocabulary,
        trained_on=len(data.training.examples),
        held_out=len(held_out),
        overlap=data.overlap,
        scores=scores,
        seed=plan.seed,
        seconds=fitted.result.seconds,
    )
    write_curve(work, fitted.length, facts.trained_on, scores.accuracy, folder)
    work.finish(folder, pretraining_card(os.path.basename(work.out), facts))
    return facts


def _codebook(training: Training[PretrainPlan], data: TrainingData, vocabulary: int) -> Tokenizer:
    """The codebook in the work directory; if there is none yet, it is fitted, and complete from one moment to the next.

    A work directory whose images are too much alike for it is removed: they would have to be others.
    """
    path, plan = training.work.path(TOKENIZER), training.plan
    if not os.path.exists(path):
        log.info("fitting a codebook of %d tokens", vocabulary, extra={"stage": "codebook"})
        try:
            codebook = fit_codebook(data.training.pixels, plan.geometry.grid, vocabulary, plan.seed)
        except UsageError:
            training.work.remove()
            raise
        _write(codebook, path)
    return open_tokenizer(path)


def _write(codebook: Tokenizer, path: str) -> None:
    with work_errors():
        codebook.save(path + ".new")
        with open(path + ".new", "rb") as stream:
            sync(stream.fileno())
        replace(path + ".new", path)
