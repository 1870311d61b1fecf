"""Features of the inputs, resumable into a file."""

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager

from beitcli.jobs.discovery import begin_stage, find_again, find_part
from beitcli.jobs.engine import RunContext, beit_preprocessing, open_beit, plan_of, predict_records, warn_if_demo
from beitcli.jobs.observer import Observer, Report
from beitcli.jobs.recording import remove_summary
from beitcli.jobs.requests import ModelChoice, Request
from beitcli.jobs.resumable import Files, preview, updated_ledger, write_files
from beitcli.jobs.tasks import Task, encoding_task
from beitcli.ledger.feature_store import FeatureCodec
from beitcli.model.checkpoint import Checkpoint
from beitcli.model.features import Encoding, shape_of
from beitcli.model.truncation import truncated
from beitcli.outputs.feature_files import FeatureFile
from beitcli.outputs.lock import exclusive
from beitcli.records import Embedding, Failure, Skipped
from beitcli.timings import Timings


def embed(request: Request, kind: Encoding, observer: Observer) -> Report:
    """Process missing or changed images and failures that may pass, then replace `request.target` by all features.

    Up-to-date files are not touched. Raises OutputError and leaves the files unchanged if the ledger or they cannot be
    written, or a folder has lost all its images; BusyError where another run has them, unless the request is to wait.
    """
    report = Report()
    with exclusive(request.resume.out, request.resume.wait):
        remove_summary(request)
        begin_stage("features", request, observer)
        found = find_again(request, report.tally.skipped)
        with (
            _encoding(request, kind) as (task, files),
            updated_ledger(request, found, task, report, observer) as ledger,
        ):
            write_files(request, files, ledger, observer)
    return report


def embeddings(request: Request, kind: Encoding) -> Generator[list[Embedding | Failure], None, None]:
    """Features of the inputs, in lists, for a caller that does with them what it wants."""
    found = find_part(request, Skipped(), replaces="")
    with (
        _encoding(request, kind) as (task, _),
        closing(predict_records(found, plan_of(request, task, padded=False), RunContext(Timings()))) as batches,
    ):
        yield from batches


def preview_embedding(request: Request, kind: Encoding) -> dict[str, int]:
    """Number of images in each state; changes nothing."""
    found = find_again(request, Skipped())
    with _encoding(request, kind) as (task, _):
        return preview(request, found, task)


def open_encoder(model: ModelChoice, kind: Encoding) -> Checkpoint:
    """The BEiT up to the layer whose states are the features.

    Raises UsageError for another architecture, or a layer that it does not have.
    """
    checkpoint = open_beit(model)
    return truncated(checkpoint, kind.layer) if isinstance(kind.layer, int) else checkpoint


@contextmanager
def _encoding(request: Request, kind: Encoding) -> Iterator[tuple[Task[Embedding], Files[Embedding]]]:
    checkpoint = open_encoder(request.model, kind)
    warn_if_demo(checkpoint)
    shape = shape_of(checkpoint, beit_preprocessing(request.model, checkpoint), kind)
    file = FeatureFile(request.target, shape, kind.dtype)
    path = f"{request.ledger}-features" if request.ledger else None
    with closing(FeatureCodec(path, request.target, shape, kind.dtype)) as vectors:
        yield encoding_task("embed", checkpoint, kind, vectors), Files(file.outputs, "", file.write)
