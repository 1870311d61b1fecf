"""Evaluation of a checkpoint on labelled images, over a ledger."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from beitcli import __version__
from beitcli.errors import UsageError
from beitcli.evaluation.ground_truth import Match
from beitcli.inputs.labelled import Labelled
from beitcli.jobs.observer import Observer, Report
from beitcli.jobs.requests import Request
from beitcli.jobs.resumable import updated_ledger
from beitcli.jobs.tasks import classification_task
from beitcli.model.checkpoint import Checkpoint
from beitcli.records import Failure

if TYPE_CHECKING:
    from beitcli.evaluation.report import Evaluation, Setting

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Labelling:
    """Images with their true labels, from a folder or table `source`, and the model's class of each label."""

    source: str
    images: Sequence[Labelled]
    classes: Mapping[str, Match]


def check_classes(checkpoint: Checkpoint) -> None:
    """Raises UsageError for a model that does not choose one of several labels per image."""
    if checkpoint.activation == "softmax":
        return
    kind = (
        "is a regression: its outputs are quantities, not classes"
        if checkpoint.activation == "none"
        else "gives each image several labels at once, and the ground truth has one"
        if len(checkpoint.labels) > 1
        else "has one label, which would always be correct"
    )
    raise UsageError(
        f"`{checkpoint.name}` {kind}", "`beit batch` writes its scores, to compare with your own ground truth"
    )


def evaluate(
    request: Request, checkpoint: Checkpoint, labelling: Labelling, report: Report, observer: Observer
) -> "Evaluation":
    """Predict the images that the ledger lacks, and measure all predictions."""
    predictions, failures = [], []
    found = (each.found for each in labelling.images)
    task = classification_task("eval", checkpoint, request.labels.top_k)
    with updated_ledger(request, found, task, report, observer) as ledger:
        from beitcli.evaluation.metrics import LabelledPrediction, measure

        dtype = " and ".join(ledger.dtypes())
        for each, record in zip(labelling.images, chain.from_iterable(ledger.records()), strict=True):
            if isinstance(record, Failure):
                failures.append(record)
            else:
                best, true = tuple(score.index for score in record.scores), labelling.classes[each.label].index
                predictions.append(LabelledPrediction(record.source, true, best, record.scores[0].score))
    if not predictions:
        log.info("no image could be read: there are no figures")
    from beitcli.evaluation.report import Evaluation, GroundTruth

    classes = labelling.classes.values()
    matched_by = dict(Counter(each.by for each in classes))
    ground_truth = GroundTruth(labelling.source, len({each.index for each in classes}), matched_by)
    figures, skipped = measure(predictions, checkpoint.labels), report.tally.skipped
    return Evaluation(__version__, _setting(request, checkpoint, dtype), ground_truth, figures, failures, skipped)


def _setting(request: Request, checkpoint: Checkpoint, dtype: str) -> "Setting":
    from beitcli.evaluation.report import Setting
    from beitcli.model.runtime import choose_device

    return Setting(
        model=checkpoint.name,
        location=checkpoint.repository.location,
        revision=checkpoint.repository.revision,
        labels=len(checkpoint.labels),
        preprocess=request.model.preprocess,
        image_size=request.model.image_size,
        fast_decode=request.limits.fast_decode,
        device=choose_device(request.compute.device),
        dtype=dtype or request.compute.precision,
    )
