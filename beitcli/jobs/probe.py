"""The linear probe, the default of `beit train`."""

import os
import time
from contextlib import closing
from dataclasses import replace
from itertools import chain
from os.path import realpath
from typing import TYPE_CHECKING

from beitcli.jobs.engine import beit_preprocessing, open_beit
from beitcli.jobs.observer import Observer, Report, stage_of
from beitcli.jobs.requests import Inputs, Request, Resume
from beitcli.jobs.resumable import updated_ledger
from beitcli.jobs.tasks import encoding_task
from beitcli.jobs.training_requests import TrainingRequest
from beitcli.jobs.validation import Validator
from beitcli.ledger.feature_store import FeatureCodec
from beitcli.model.features import Encoding, shape_of
from beitcli.model.truncation import check_layer
from beitcli.outputs.lock import exclusive
from beitcli.records import Embedding, Failure
from beitcli.training.data.examples import Split, check_can_hold_out
from beitcli.training.settings import WAY

if TYPE_CHECKING:
    from beitcli.model.preprocessing import Preprocessing
    from beitcli.training.model_card import Facts
    from beitcli.training.probe.checkpoint import PooledCheckpoint

_SETTINGS = {WAY: "a linear probe"}
"""The ledger identifies the settings of the features."""


def train_probe(request: TrainingRequest, observer: Observer) -> "tuple[Facts, float, int | None]":
    """Train the probe and write its model, complete or not at all.

    Returns the facts of its card, its strength, and the layer that its features are from if that was asked for.

    Until then the features are kept for the next run. Images that are held out are not learnt from, and validate the
    saved model; cross-validated ones, and those of `refit_on_all`, are. Raises UsageError if the images or the model
    are not suitable.
    """
    images, recipe, work = request.images, request.recipe, request.work
    pool = recipe.pool or "mean"
    split, started = images.whole(request.walk), time.monotonic()
    if not split.validation:
        check_can_hold_out([example.target for example in split.training])
    base = open_beit(request.model)
    cut = recipe.probed if isinstance(recipe.probed, int) else None
    if cut is not None:
        check_layer(base, cut)
    preprocessing = beit_preprocessing(request.model, base)
    observer.stage("features", len(split.training) + len(split.validation))
    with exclusive(work.out, wait=False):
        if work.begun(_SETTINGS) is None:
            work.start()
            work.begin(_SETTINGS, {})
        from beitcli.training.digests import write_digests
        from beitcli.training.model_card import model_card
        from beitcli.training.probe.card import Circumstances, probe_facts
        from beitcli.training.probe.checkpoint import pooled, save
        from beitcli.training.probe.fit import ProbePlan, fit_probe
        from beitcli.training.validation import write_table

        records, dtype = _features(request, split, pooled(base, pool, cut), preprocessing, observer)
        plan = ProbePlan(images.val_share, images.max_errors, recipe.seed, recipe.refit_on_all)
        probe = fit_probe(plan, split, records, stage_of(observer, "fitting", "fits"))
        layer = probe.behind + 1 if recipe.probed == "all" else cut
        checkpoint = pooled(base, pool, layer)
        folder = work.path("model")
        save(checkpoint, probe.layer, split.classes, preprocessing, folder)
        held_out = [example.found for example in probe.held_out]
        predictions = Validator(request.limits, request.compute, observer)(folder, held_out) if held_out else None
        circumstances = Circumstances(request.command, recipe.seed, time.monotonic() - started, dtype)
        facts = probe_facts(probe, base, checkpoint, split.classes, predictions, circumstances)
        write_table(facts.validated, facts.classes, folder)
        write_digests(probe.digests, folder)
        work.finish(folder, model_card(os.path.basename(work.out), facts))
        return facts, probe.strength, layer


def _features(
    training: TrainingRequest,
    split: Split,
    checkpoint: "PooledCheckpoint",
    preprocessing: "Preprocessing",
    observer: Observer,
) -> tuple[list[Embedding | Failure], str]:
    """One record per image, training images first, and the dtype of the features."""
    target, pool = realpath(training.work.path("features")), checkpoint.pool
    compute, resume = replace(training.compute, batch_size=training.recipe.batch_size), Resume(out=target, prune=True)
    request = Request(Inputs(), training.limits, training.model, compute, resume=resume, target=target)
    kind = Encoding(pool, layer=training.recipe.probed)
    shape = shape_of(checkpoint, preprocessing, kind)
    examples = (*split.training, *split.validation)
    with closing(FeatureCodec(f"{request.ledger}-features", target, shape, kind.dtype)) as vectors:
        task = encoding_task("train", checkpoint, kind, vectors)
        found = (example.found for example in examples)
        with updated_ledger(request, found, task, Report(), observer) as ledger:
            return list(chain.from_iterable(ledger.records())), " and ".join(ledger.dtypes())
