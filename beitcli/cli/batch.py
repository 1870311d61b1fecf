"""`beit batch`: records in a file, or streamed where there is no `--out`."""

from functools import partial
from typing import Annotated

import typer

from beitcli.cli import notices
from beitcli.cli.formats import format_of_file, standard_format
from beitcli.cli.options import InputOptions, ModelOptions, OutputOptions, examples, with_options
from beitcli.cli.run import Destination, check, run
from beitcli.outputs.destination import check_writable, is_stream, replaced_file, standard_output, stream_to
from beitcli.outputs.lock import alone

EXAMPLES = examples(
    "beit batch ./images --out preds.csv",
    "beit batch ./archive -m base-224 -e jpg,png -E thumbs --out labels.jsonl",
    "find /share -name '*.jpg' -print0 | beit batch --files-from - -0 --out preds.tsv",
    "beit batch ./images --label cat --threshold 0.5 | wc -l",
)


@with_options
def batch(
    inputs: InputOptions,
    model: ModelOptions,
    output: OutputOptions,
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE|-",
            rich_help_panel="Output",
            help="Where the records go, complete or not at all; `-` = stdout.",
        ),
    ] = "-",
) -> None:
    """Classify many pictures into a file, or to standard output."""
    notices.set_up(output.quiet, output.verbose)
    check(inputs, model, output)
    if out == "-":
        destination = Destination(standard_output, standard_format(output), padded=True)
        raise typer.Exit(run(inputs, model, output, destination))
    file_format = format_of_file(out, output)
    check_writable(out)
    if is_stream(out):
        raise typer.Exit(run(inputs, model, output, Destination(partial(stream_to, out), file_format, padded=True)))
    with alone(out, wait=False):
        destination = Destination(partial(replaced_file, out, keeps_part=True), file_format, padded=True)
        raise typer.Exit(run(inputs, model, output, destination))
