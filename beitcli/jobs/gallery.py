"""A page of images with their labels: from records, the JSON of an evaluation, or images that are classified first."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Annotated

from beitcli.errors import UsageError
from beitcli.gallery.evaluations import read_evaluation
from beitcli.gallery.items import Gallery, Item, sample
from beitcli.inputs.labelled import by_table, found_beside
from beitcli.inputs.sources import literal
from beitcli.jobs.classify import choose
from beitcli.jobs.discovery import begin_stage, find_again
from beitcli.jobs.gallery_page import WrittenPage, check_page, write_page
from beitcli.jobs.observer import Observer, Report
from beitcli.jobs.requests import Request
from beitcli.jobs.resumable import updated_ledger
from beitcli.jobs.tasks import resumable_classification_task
from beitcli.jobs.values import Range, check_values
from beitcli.outputs.destination import check_not_overwritten
from beitcli.outputs.formats import BY_SUFFIX, by_suffix
from beitcli.outputs.lock import exclusive
from beitcli.outputs.provenance import Provenance, common
from beitcli.outputs.readers import RecordReader, check_no_page
from beitcli.records import Failure, Prediction, Record, Source, composed, printable

MOST_LABELS = 10
"""Labels of one image that a page shows at most."""

_RECORDS = tuple(suffix + end for suffix in BY_SUFFIX for end in ("", ".gz"))
_EVALUATION = ".json"


@dataclass(frozen=True, slots=True)
class GalleryRequest:
    """All options of a page.

    The inputs of `run` are files of results, or images to classify first, whose results are kept beside the page that
    `run.resume.out` names. `labels` is a table of true labels, and `sample` the number of the least and of the most
    certain images of each label to show, None for all images.
    """

    run: Request
    labels: str | None = None
    sample: Annotated[int | None, Range(1)] = None

    @property
    def out(self) -> str:
        return self.run.resume.out

    @property
    def has_results(self) -> bool:
        """True if the inputs are files of results. Raises UsageError if only some of them are."""
        inputs = self.run.inputs.inputs or []
        for path in inputs:
            check_no_page(path)
        results = [path for path in inputs if os.path.isfile(path) and path.lower().endswith((*_RECORDS, _EVALUATION))]
        if results and len(results) < len(inputs):
            other = next(path for path in inputs if path not in results)
            raise UsageError(
                f"`{printable(results[0])}` holds results, and `{printable(other)}` does not",
                "name files of results, or images to classify",
            )
        return bool(results)

    def check(self) -> None:
        """Raise UsageError for options that contradict each other, OutputError for a page that cannot be written."""
        check_values(self)
        self.run.check()
        check_page(self.out)
        check_not_overwritten([self.out], [*self.run.inputs.files, *filter(None, [self.labels])])


def show(request: GalleryRequest, observer: Observer) -> WrittenPage:
    """Write the page that shows the results, and nothing that is on it already is made again.

    Raises UsageError for inputs that do not fit, BeitError for a file that is none of results, OutputError where the
    page cannot be written.
    """
    request.check()
    with exclusive(request.out, wait=False):
        gallery = _read(request, observer) if request.has_results else _classified(request.run, observer)
        if request.labels is not None:
            gallery = _with_true_labels(gallery, request.labels)
        if request.sample is not None:
            chosen = sample(gallery.items, request.sample)
            gallery = replace(gallery, items=chosen, left_out=len(gallery.items) - len(chosen))
        return write_page(gallery, request.out, request.run.limits, request.run.compute, observer)


def _read(request: GalleryRequest, observer: Observer) -> Gallery:
    """The gallery of files of results. Of an image that is in several of them the last result counts."""
    paths = request.run.inputs.inputs or []
    title = ", ".join(printable(os.path.basename(path)) for path in paths)
    if any(path.lower().endswith(_EVALUATION) for path in paths):
        return _evaluated(paths, title)
    items: dict[Source, Item] = {}
    provenances: list[Provenance | None] = []
    observer.stage("reading", unit="rows")
    for path in paths:
        reader = RecordReader(path, *by_suffix(path))
        for record in reader.records():
            items[record.source] = item_of(record, beside=path)
            observer.progress(1)
        provenances.append(reader.provenance)
    if not items:
        raise UsageError(f"`{printable(paths[0])}` has no row", "name files of results with images")
    model = common(provenances)
    return Gallery(title, list(items.values()), about=[("model", model.model)] if model else [])


def _evaluated(paths: Sequence[str], title: str) -> Gallery:
    """The gallery of one evaluation's JSON."""
    if len(paths) > 1:
        raise UsageError("the JSON of an evaluation has a page of its own", "name one file")
    records, figures, model = read_evaluation(paths[0])
    items = [item_of(record, true, beside=paths[0]) for record, true in records]
    shown = {name: value for name, value in figures.items() if name != "mistakes"}
    note = "An evaluation's JSON names its most confident mistakes and its failures: other images are not shown."
    return Gallery(title, items, about=[("model", printable(model))], figures=shown, note=note)


def item_of(record: Record, true: str | None = None, beside: str = "") -> Item:
    """The item of a record whose path is relative to this folder, or that of the file `beside`."""
    source = literal(record.source.location)
    if source.kind == "path":
        source = Source(found_beside(source.location, beside))
    if isinstance(record, Prediction):
        record = replace(record, scores=record.scores[:MOST_LABELS])
    return Item(record, source, true)


def _classified(run: Request, observer: Observer) -> Gallery:
    """The gallery of images that are classified first, as far as an earlier run has not."""
    report = Report()
    begin_stage("classifying", run, observer)
    found = find_again(run, report.tally.skipped)
    checkpoint, _ = choose(run.model, run.labels)
    task = resumable_classification_task("batch", checkpoint, run.labels.top_k)
    with updated_ledger(run, found, task, report, observer) as ledger:
        items = [item_of(record) for record in chain.from_iterable(ledger.records())]
    if not items:
        raise UsageError("there is no image to show", "name files, folders, globs or URLs")
    title = ", ".join(printable(os.path.basename(path.rstrip("/")) or path) for path in run.inputs.inputs or [])
    return Gallery(title, items, checkpoint.labels, [("model", printable(checkpoint.name))])


def _with_true_labels(gallery: Gallery, table: str) -> Gallery:
    """The gallery with the true labels of a table, spelled as the model spells them, and the figures of both."""
    from beitcli.gallery.accuracy import figures_of

    labels = {_place(each.found): each.label for each in by_table(table) if isinstance(each.found, Source)}
    spelled = _spellings(chain(gallery.labels, _labels_in(gallery.items)))
    items = [
        replace(item, true=None if label is None else spelled.get(label, spelled.get(label.casefold(), label)))
        for item, label in ((item, labels.get(_place(item.source))) for item in gallery.items)
    ]
    if all(item.true is None for item in items):
        example = printable(next(iter(labels)))
        raise UsageError(
            f"`{printable(table)}` has the label of none of these images", f"its first path is `{example}`"
        )
    return replace(gallery, items=items, figures=figures_of(items))


def _place(source: Source) -> str:
    return os.path.realpath(source.location) if source.kind == "path" else source.location


def _labels_in(items: Iterable[Item]) -> Iterator[str]:
    for item in items:
        if not isinstance(item.record, Failure):
            yield from (each.label for each in item.record.scores)


def _spellings(labels: Iterable[str]) -> dict[str, str]:
    """The label for each of its names: itself and, where they are not those of another, its synonyms in any case."""
    whole = {composed(label): label for label in dict.fromkeys(labels)}
    synonyms: dict[str, set[str]] = {}
    for label in whole.values():
        for name in (label, *label.split(",")):
            synonyms.setdefault(composed(name).strip().casefold(), set()).add(label)
    clear = {name: next(iter(several)) for name, several in synonyms.items() if len(several) == 1}
    return clear | whole
