"""`beit classify`: print records of classified images."""

from contextlib import suppress
from typing import Annotated

import typer

from beitcli.cli import notices, progress
from beitcli.cli.exit_status import exit_status
from beitcli.cli.formats import layout_for, standard_format
from beitcli.cli.options import OutputOptions, Without, examples, with_options
from beitcli.errors import UsageError
from beitcli.jobs.classify import classify as run
from beitcli.jobs.requests import Compute, Inputs, Labels, Limits, ModelChoice, Request
from beitcli.jobs.stream import Destination
from beitcli.outputs.destination import ReaderClosed, standard_output

EXAMPLES = examples(
    "beit classify photo.jpg",
    "beit classify -m demo -k 3 ./photos 'more/**/*.png'",
    "beit classify https://example.org/cat.jpg --format jsonl",
    "curl -s https://example.org/cat.jpg | beit classify -",
)


def _refuse_out(out: str | None) -> None:
    if out is not None:
        raise UsageError(
            "classify has no --out: it writes to standard output", "`beit batch INPUT... --out FILE` writes a file"
        )


@with_options
def classify(
    inputs: Inputs,
    limits: Limits,
    model: ModelChoice,
    compute: Annotated[Compute, Without("engine", "address")],
    labels: Labels,
    output: OutputOptions,
    out: Annotated[str | None, typer.Option("--out", "-o", hidden=True, callback=_refuse_out)] = None,  # noqa: ARG001
) -> None:
    """Classify images and print the predictions."""
    notices.set_up(output.quiet, output.verbose)
    request = Request(inputs, limits, model, compute, labels)
    request.check()
    output.check()
    layout = layout_for(standard_format(output, labels), output)
    with suppress(ReaderClosed), progress.observer(output.quiet, records_on_stdout=True) as observer:
        report = run(request, layout, Destination(standard_output, padded=False), observer)
        raise typer.Exit(exit_status(report, output))
