"""The linear probe, the default of `beit train`."""

import time
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain
from os.path import realpath
from typing import TYPE_CHECKING, Literal

from beitcli.jobs.engine import beit_preprocessing, open_beit, warn_if_demo
from beitcli.jobs.observer import Observer, Report
from beitcli.jobs.requests import Request, Resume
from beitcli.jobs.resumable import updated_ledger
from beitcli.jobs.tasks import encoding_task
from beitcli.ledger.feature_store import FeatureCodec
from beitcli.model.checkpoint import Checkpoint
from beitcli.model.features import Encoding, shape_of
from beitcli.outputs.lock import exclusive
from beitcli.records import Embedding, Failure
from beitcli.training.data.examples import Split, check_can_hold_out
from beitcli.training.work_dir import WorkDir

if TYPE_CHECKING:
    from beitcli.model.preprocessing import Preprocessing
    from beitcli.training.model_card import Facts

_SETTINGS = {"way": "a linear probe"}
"""The ledger identifies the settings of the features."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A linear probe to train.

    `share` of each class is held out for validation, and so many unreadable images as `max_errors` are passed over.
    """

    split: Split
    request: Request
    pool: Literal["mean", "cls"]
    share: float | None
    max_errors: int
    seed: int
    command: str


def train_probe(probe: Probe, work: WorkDir, observer: Observer) -> "tuple[Facts, float]":
    """Train the probe and write its model, complete or not at all; returns the facts of its card, and its strength.

    Until then the features are kept for the next run. Raises UsageError if the images or the model are not suitable.
    """
    started = time.monotonic()
    if not probe.split.validation:
        check_can_hold_out([example.target for example in probe.split.training])
    base = open_beit(probe.request.model)
    preprocessing = beit_preprocessing(probe.request.model, base)
    warn_if_demo(base)
    with exclusive(work.out, wait=False):
        if work.begun(_SETTINGS) is None:
            work.start()
            work.begin(_SETTINGS, {})
        from beitcli.training.probe import fit as training
        from beitcli.training.probe.checkpoint import pooled

        checkpoint = pooled(base, probe.pool)
        records = _features(probe, checkpoint, preprocessing, work, observer)
        plan = training.ProbePlan(probe.share, probe.max_errors, probe.seed, probe.command, started)
        return training.train_probe(plan, probe.split, records, checkpoint, preprocessing, work)


def _features(
    probe: Probe, checkpoint: Checkpoint, preprocessing: "Preprocessing", work: WorkDir, observer: Observer
) -> list[Embedding | Failure]:
    """One record per image, training images first."""
    target = realpath(work.path("features"))
    request = replace(probe.request, resume=Resume(out=target, prune=True), target=target)
    kind, shape = Encoding(probe.pool), shape_of(checkpoint, preprocessing, probe.pool)
    found = (example.found for example in (*probe.split.training, *probe.split.validation))
    with closing(FeatureCodec(f"{request.ledger}-features", target, shape, kind.dtype)) as vectors:
        task = encoding_task("train", checkpoint, kind, vectors)
        with updated_ledger(request, found, task, Report(), observer) as ledger:
            return list(chain.from_iterable(ledger.records()))
