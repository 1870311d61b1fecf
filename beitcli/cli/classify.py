"""`beit classify`: records on standard output, as a table or for a pipeline."""

from typing import Annotated

import typer

from beitcli.cli import notices
from beitcli.cli.formats import standard_format
from beitcli.cli.options import InputOptions, ModelOptions, OutputOptions, examples, with_options
from beitcli.cli.run import Destination, check, run
from beitcli.errors import UsageError
from beitcli.outputs.destination import standard_output

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
    inputs: InputOptions,
    model: ModelOptions,
    output: OutputOptions,
    out: Annotated[str | None, typer.Option("--out", "-o", hidden=True, callback=_refuse_out)] = None,  # noqa: ARG001
) -> None:
    """Classify images and print the predictions."""
    notices.set_up(output.quiet, output.verbose)
    check(inputs, model, output)
    text_format = standard_format(output)
    raise typer.Exit(run(inputs, model, output, Destination(standard_output, text_format, padded=False)))
