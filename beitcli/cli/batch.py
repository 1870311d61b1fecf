"""`beit batch`: records in a file, or streamed without `--out`."""

from contextlib import suppress
from functools import partial
from os.path import realpath
from typing import NoReturn

import typer

from beitcli.cli import notices, progress
from beitcli.cli.exit_status import exit_status
from beitcli.cli.formats import format_of_file, layout_for, standard_format
from beitcli.cli.options import OutputOptions, examples, with_options
from beitcli.cli.preview import print_preview
from beitcli.jobs.classify import LayoutFor, classify, classify_into_file, preview_classification
from beitcli.jobs.requests import Compute, Inputs, Labels, Limits, ModelChoice, Request, Resume
from beitcli.jobs.stream import Destination
from beitcli.outputs.destination import (
    ReaderClosed,
    check_not_overwritten,
    check_writable,
    is_stream,
    standard_output,
    stream_to,
)

EXAMPLES = examples(
    "beit batch ./images --out preds.csv",
    "beit batch ./archive -m base-224 -e jpg,png -E thumbs --out labels.jsonl",
    "find /share -name '*.jpg' -print0 | beit batch --files-from - -0 --out preds.tsv",
    "beit batch ./images --label cat -f jsonl | jq -r .source",
)


@with_options
def batch(
    inputs: Inputs,
    limits: Limits,
    model: ModelChoice,
    compute: Compute,
    labels: Labels,
    output: OutputOptions,
    resume: Resume,
) -> None:
    """Classify many images into a file, or to standard output.

    Run it again to process only missing or changed images and failures that may pass.
    """
    notices.set_up(output.quiet, output.verbose)
    request = Request(inputs, limits, model, compute, labels, resume, realpath(resume.out), output.tolerated())
    request.check()
    if resume.out == "-":
        layout, destination = layout_for(standard_format(output, labels), output), Destination(standard_output, True)
    else:
        layout = layout_for(format_of_file(resume.out, output, labels), output)
        check_not_overwritten([resume.out], inputs.files)
        check_writable(resume.out)
        if not is_stream(resume.out):
            _write_file(request, layout, output)
        destination = Destination(partial(stream_to, resume.out), padded=True)
    with suppress(ReaderClosed), progress.observer(output.quiet, records_on_stdout=True) as observer:
        raise typer.Exit(exit_status(classify(request, layout, destination, observer), output))


def _write_file(request: Request, layout: LayoutFor, output: OutputOptions) -> NoReturn:
    if request.resume.dry_run:
        print_preview(preview_classification(request))
        raise typer.Exit
    with progress.observer(output.quiet) as observer:
        raise typer.Exit(exit_status(classify_into_file(request, layout, observer), output))
