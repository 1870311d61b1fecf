"""`beit eval`: accuracy of a model on labelled images."""

from contextlib import suppress
from dataclasses import replace
from typing import Annotated

import typer

from beitcli.cli import notices, progress
from beitcli.cli.exit_status import exit_status
from beitcli.cli.options import OutputOptions, Without, examples, with_options
from beitcli.errors import UsageError
from beitcli.evaluation.ground_truth import Reading
from beitcli.jobs import evaluate as job
from beitcli.jobs.requests import Compute, Inputs, Limits, ModelChoice, Request, Resume
from beitcli.outputs.destination import ReaderClosed, writing
from beitcli.tables import show

EXAMPLES = examples(
    "beit eval ./val -m base-224 --preprocess paper",
    "beit eval ./val -m demo --json eval.json --plots .",
    "beit eval ./val -m ./my-model --report report.html",
    "beit eval --labels labels.csv -m ./my-model",
)


@with_options
def evaluate(
    inputs: Annotated[Inputs, Without("inputs", "files_from", "null")],
    limits: Limits,
    model: ModelChoice,
    compute: Compute,
    output: Annotated[OutputOptions, Without("format", "bom")],
    resume: Annotated[Resume, Without("out", "shard", "dry_run", "ledger", "allow_empty")],
    folder: Annotated[
        str | None,
        typer.Argument(
            metavar="DIR", help="A folder that holds a folder of images for each class.", show_default=False
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option("--labels", metavar="FILE", help="Instead of DIR: a CSV or TSV of paths and labels."),
    ] = None,
    label_by: Annotated[
        Reading | None,
        typer.Option(
            "--label-by",
            help="Read all labels as names of classes, WordNet ids or indices [default: the one that fits them all].",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write all figures here, unrounded.")
    ] = None,
    mistakes: Annotated[
        str | None,
        typer.Option("--mistakes", metavar="FILE.csv", help="Write every image with a wrong prediction here."),
    ] = None,
    plots: Annotated[
        str | None,
        typer.Option("--plots", metavar="DIR", help="Write confusion.png, confusion.csv and reliability.png here."),
    ] = None,
    page: Annotated[
        str | None,
        typer.Option("--report", metavar="FILE.html", help="Write a page of all images here, as `beit report` does."),
    ] = None,
) -> None:
    """Measure the accuracy of a model on labelled images.

    With --json FILE, run it again to process only missing or changed images and failures that may pass.
    """
    notices.set_up(output.quiet, output.verbose)
    if out == "-":
        raise UsageError("--json -: standard output has the tables", "name a file")
    resume = replace(resume, out=out or "-")
    run = Request(inputs, limits, model, compute, resume=resume, tolerated=output.tolerated())
    with progress.observer(output.quiet) as observer:
        evaluated = job.evaluate(job.EvaluationRequest(run, folder, labels, plots, label_by, mistakes, page), observer)
    from beitcli.evaluation.report import tables, warning_of

    with suppress(ReaderClosed), writing():
        show(tables(evaluated.evaluation), output.colored, first=warning_of(evaluated.evaluation))
    raise typer.Exit(exit_status(evaluated.report, output))
