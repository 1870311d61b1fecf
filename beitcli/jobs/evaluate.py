"""Evaluation of a checkpoint on labelled images, over a ledger."""

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

from beitcli import __version__
from beitcli.errors import UsageError
from beitcli.evaluation.ground_truth import Match, Reading, match
from beitcli.gallery.items import Gallery, Item
from beitcli.inputs.labelled import Labelled
from beitcli.jobs.distribution import device_name
from beitcli.jobs.engine import open_classifier, warn_if_demo
from beitcli.jobs.evaluation_files import EvaluationFiles
from beitcli.jobs.gallery_page import write_page
from beitcli.jobs.labelling import read_labels
from beitcli.jobs.observer import Observer, Report
from beitcli.jobs.recording import remove_summary
from beitcli.jobs.requests import Request
from beitcli.jobs.resumable import keep_edited, updated_ledger
from beitcli.jobs.tasks import resumable_classification_task
from beitcli.jobs.values import check_values
from beitcli.ledger.ledger import Ledger
from beitcli.ledger.output_files import versions_of
from beitcli.model.checkpoint import Checkpoint
from beitcli.outputs.destination import check_not_overwritten, is_in
from beitcli.outputs.lock import exclusive
from beitcli.records import Failure, Prediction, Source, printable

if TYPE_CHECKING:
    from beitcli.evaluation.report import Evaluation, Setting

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """All options of an evaluation.

    The images are those of `folder`, one of class folders, or of the table `labels`. The results are kept beside the
    JSON file that `run.resume.out` names; `plots` is the folder of the plots, `mistakes` the table of the images with a
    wrong prediction, and `page` the page of all images. The inputs of `run` only filter the walk. `label_by` is the
    reading of the labels, None for the one that fits them all.
    """

    run: Request
    folder: str | None = None
    labels: str | None = None
    plots: str | None = None
    label_by: Reading | None = None
    mistakes: str | None = None
    page: str | None = None

    @property
    def files(self) -> EvaluationFiles:
        """The files to write."""
        json = None if self.run.resume.out == "-" else self.run.resume.out
        return EvaluationFiles(json, self.plots, self.mistakes, self.page)

    def check(self) -> None:
        """Raise UsageError for options that contradict each other, OutputError for files that cannot be written."""
        for part in (self.run.limits, self.run.model, self.run.compute, self.run.resume):
            part.check()
        check_values(self)
        self.files.check()
        self._check_summary()
        if self.folder is not None and self.plots is not None and is_in(self.plots, self.folder):
            raise UsageError(f"`{printable(self.plots)}` is in the folder of the images", "choose a `plots=` beside it")

    def _check_summary(self) -> None:
        """Raise UsageError for a summary in another of the files."""
        summary = self.run.resume.summary
        if summary is not None and os.path.realpath(summary) in map(os.path.realpath, self.files.paths):
            raise UsageError(f"`summary={printable(summary)}`: no file of its own", "for example `summary=run.json`")


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The figures of an evaluation, and the report of its run."""

    evaluation: "Evaluation"
    report: Report


@dataclass(frozen=True, slots=True)
class _Labelling:
    """Images with their true labels, and the model's class of each label."""

    images: Sequence[Labelled]
    classes: Mapping[str, Match]


def evaluate(request: EvaluationRequest, observer: Observer) -> Evaluated:
    """Predict the images that an earlier run has not predicted, measure all predictions, and write the files.

    Raises UsageError for images or a model that do not fit, OutputError where the files cannot be written.
    """
    request.check()
    report = Report()
    labelled = read_labels(request.folder, request.labels, request.run.inputs.walk(), report.tally.skipped)
    sources = [each for each in labelled if isinstance(each.found, Source)]
    images = (each.found.location for each in sources if isinstance(each.found, Source))
    outputs = [*request.files.paths, *filter(None, [request.run.resume.summary])]
    check_not_overwritten(outputs, chain(filter(None, [request.labels]), images))
    remove_summary(request.run)
    checkpoint = open_classifier(request.run.model)
    _check_classes(checkpoint)
    classes = match((each.label for each in sources), checkpoint.labels, request.label_by)
    labelling = _Labelling(labelled, classes)
    warn_if_demo(checkpoint)
    resume = request.run.resume
    with nullcontext() if resume.streams else exclusive(resume.out, resume.wait):
        observer.stage("classifying", len(labelled))
        with _updated_ledger(request.run, checkpoint, labelling, report, observer) as ledger:
            evaluation = _evaluate(request, checkpoint, labelling, report, ledger)
            request.files.write(evaluation)
            if request.page is not None:
                gallery = _gallery(request, checkpoint, labelling, ledger, evaluation)
                write_page(gallery, request.page, request.run.limits, request.run.compute, observer)
            ledger.outputs = versions_of(request.files.paths)
    return Evaluated(evaluation, report)


def _check_classes(checkpoint: Checkpoint) -> None:
    """Raise UsageError for a model that does not choose one of several labels per image."""
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


def _updated_ledger(
    run: Request, checkpoint: Checkpoint, labelling: _Labelling, report: Report, observer: Observer
) -> AbstractContextManager[Ledger[Prediction]]:
    """The ledger with a prediction for every image."""
    out = run.resume
    run = replace(run, resume=replace(out, no_ledger=out.no_ledger or out.streams), target=os.path.realpath(out.out))
    found = (each.found for each in labelling.images)
    task = resumable_classification_task("eval", checkpoint, run.labels.top_k)
    return updated_ledger(run, found, task, report, observer)


def _evaluate(
    request: EvaluationRequest,
    checkpoint: Checkpoint,
    labelling: _Labelling,
    report: Report,
    ledger: Ledger[Prediction],
) -> "Evaluation":
    """Measure all predictions."""
    from beitcli.evaluation.metrics import LabelledPrediction, measure

    predictions, digests, failures = [], [], []
    keep_edited(request.run, request.files.paths, ledger)
    dtype = " and ".join(ledger.dtypes())
    for each, record in zip(labelling.images, chain.from_iterable(ledger.records()), strict=True):
        if isinstance(record, Failure):
            failures.append(record)
        else:
            best, true = tuple(score.index for score in record.scores), labelling.classes[each.label].index
            predictions.append(LabelledPrediction(record.source, true, best, record.scores[0].score))
            digests.append(record.identity.digest or b"")
    if not predictions:
        log.info("no image could be read: there are no figures")
    from beitcli.evaluation.report import Evaluation, GroundTruth

    classes = labelling.classes.values()
    matched_by = dict(Counter(each.by for each in classes))
    ground_truth = GroundTruth(
        request.folder or request.labels or "", len({each.index for each in classes}), matched_by
    )
    figures, skipped = measure(predictions, checkpoint.labels), report.tally.skipped
    setting, learnt = _setting(request.run, checkpoint, ledger.device, dtype), _count_learnt(checkpoint, digests)
    return Evaluation(__version__, setting, ground_truth, figures, failures, skipped, learnt)


def _gallery(
    request: EvaluationRequest,
    checkpoint: Checkpoint,
    labelling: _Labelling,
    ledger: Ledger[Prediction],
    evaluation: "Evaluation",
) -> Gallery:
    """The page of all images with their true labels."""
    from beitcli.evaluation.report import warning_of
    from beitcli.gallery.accuracy import shown

    items = []
    for each, record in zip(labelling.images, chain.from_iterable(ledger.records()), strict=True):
        source = each.found.source if isinstance(each.found, Failure) else each.found
        items.append(Item(record, source, checkpoint.labels[labelling.classes[each.label].index]))
    title = printable(os.path.basename((request.folder or request.labels or "").rstrip("/")))
    about = [("model", printable(checkpoint.name))]
    note = warning_of(evaluation) or ""
    return Gallery(title, items, checkpoint.labels, about, shown(evaluation.figures), note=note)


def _count_learnt(checkpoint: Checkpoint, digests: Sequence[bytes]) -> int | None:
    """The number of images that the model has learnt from, None where nothing here says so."""
    from beitcli.training.digests import DIGESTS, count_learnt

    path = checkpoint.repository.file(DIGESTS) if checkpoint.repository.is_here(DIGESTS) else None
    if path is None:
        return None
    if not all(digests):
        log.info("images without a digest are not looked for among those that `%s` has learnt from", checkpoint.name)
    return count_learnt(path, filter(None, digests))


def _setting(request: Request, checkpoint: Checkpoint, device: str | None, dtype: str) -> "Setting":
    from beitcli.evaluation.report import Setting

    return Setting(
        model=checkpoint.name,
        location=checkpoint.repository.location,
        revision=checkpoint.repository.revision,
        labels=len(checkpoint.labels),
        preprocess=request.model.preprocess,
        image_size=request.model.image_size,
        fast_decode=request.limits.fast_decode,
        device=device_name(request.compute, device),
        dtype=dtype or request.compute.precision,
    )
