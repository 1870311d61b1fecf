"""`beit report`: a page of images with their labels, to look at and to correct."""

from dataclasses import replace
from os.path import realpath
from typing import Annotated

import typer

from beitcli.cli import notices, progress
from beitcli.cli.options import Without, examples, with_options
from beitcli.jobs import gallery as job
from beitcli.jobs.requests import Compute, Inputs, Limits, ModelChoice, Request, Resume
from beitcli.records import printable

EXAMPLES = examples(
    "beit report preds.csv --out report.html",
    "beit report ./photos -m base-224 --out report.html",
    "beit report preds.parquet --labels labels.csv --sample 20 --out report.html",
)


@with_options
def report(
    results: Annotated[
        list[str],
        typer.Argument(
            metavar="RESULTS...",
            help="Files that `beit batch` wrote, the --json of `beit eval`, or images and folders to classify first.",
            show_default=False,
        ),
    ],
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="FILE.html", help="The page, written complete or not at all.")
    ],
    inputs: Annotated[Inputs, Without("inputs", "files_from", "null")],
    limits: Limits,
    model: ModelChoice,
    compute: Compute,
    labels: Annotated[
        str | None,
        typer.Option("--labels", metavar="FILE", help="True labels: a CSV or TSV of paths and labels."),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(
            "--sample",
            metavar="N",
            min=1,
            help="Show only the N least and the N most certain images of each label.",
            show_default=False,
        ),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No notices, progress or summary; errors only.", show_default=False)
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Report what is loaded and chosen.", show_default=False)
    ] = False,
) -> None:
    """Write a page of images with their labels, which a browser opens without a server or a network.

    There they are searched, filtered, sorted and corrected; the corrections are saved as a table of labels. Run it
    again to make only the thumbnails of new or changed images.
    """
    notices.set_up(quiet, verbose)
    inputs = replace(inputs, inputs=results)
    run = Request(inputs, limits, model, compute, resume=Resume(out=out), target=realpath(out), tolerated=None)
    with progress.observer(quiet) as observer:
        written = job.show(job.GalleryRequest(run, labels, sample), observer)
    if not quiet:
        unseen = f", {written.unseen} could not be opened" if written.unseen else ""
        notices.print_line(f"{written.images} images in `{printable(out)}`: {written.made} thumbnails made now{unseen}")
