"""The linear probe, the default of `beit train`."""

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
from beitcli.ledger.feature_store import FeatureCodec
from beitcli.model.features import Encoding, shape_of
from beitcli.outputs.lock import exclusive
from beitcli.records import Embedding, Failure
from beitcli.training.data.examples import Split, check_can_hold_out

if TYPE_CHECKING:
    from beitcli.model.preprocessing import Preprocessing
    from beitcli.training.model_card import Facts
    from beitcli.training.probe.checkpoint import PooledCheckpoint

_SETTINGS = {"way": "a linear probe"}
"""The ledger identifies the settings of the features."""


def train_probe(request: TrainingRequest, observer: Observer) -> "tuple[Facts, float]":
    """Train the probe and write its model, complete or not at all; returns the facts of its card, and its strength.

    Until then the features are kept for the next run. Raises UsageError if the images or the model are not suitable.
    """
    images, pool, work = request.images, request.recipe.pool or "mean", request.work
    split, started = images.whole(request.walk), time.monotonic()
    if not split.validation:
        check_can_hold_out([example.target for example in split.training])
    base = open_beit(request.model)
    preprocessing = beit_preprocessing(request.model, base)
    observer.stage("features", len(split.training) + len(split.validation))
    with exclusive(work.out, wait=False):
        if work.begun(_SETTINGS) is None:
            work.start()
            work.begin(_SETTINGS, {})
        from beitcli.training.probe import fit as training
        from beitcli.training.probe.checkpoint import pooled

        checkpoint = pooled(base, pool)
        records = _features(request, split, checkpoint, preprocessing, observer)
        plan = training.ProbePlan(images.val_share, images.max_errors, request.recipe.seed, request.command, started)
        on_fit = stage_of(observer, "fitting", "fits")
        return training.train_probe(plan, split, records, checkpoint, preprocessing, work, on_fit)


def _features(
    training: TrainingRequest,
    split: Split,
    checkpoint: "PooledCheckpoint",
    preprocessing: "Preprocessing",
    observer: Observer,
) -> list[Embedding | Failure]:
    """One record per image, training images first."""
    target, pool = realpath(training.work.path("features")), checkpoint.pool
    compute, resume = replace(training.compute, batch_size=training.recipe.batch_size), Resume(out=target, prune=True)
    request = Request(Inputs(), training.limits, training.model, compute, resume=resume, target=target)
    kind, shape = Encoding(pool), shape_of(checkpoint, preprocessing, pool)
    examples = (*split.training, *split.validation)
    with closing(FeatureCodec(f"{request.ledger}-features", target, shape, kind.dtype)) as vectors:
        task = encoding_task("train", checkpoint, kind, vectors)
        found = (example.found for example in examples)
        with updated_ledger(request, found, task, Report(), observer) as ledger:
            return list(chain.from_iterable(ledger.records()))
