"""`beit batch`: records in a file, or streamed where there is no `--out`."""

from functools import partial
from os.path import realpath

import typer

from beitcli.cli import notices
from beitcli.cli.formats import format_of_file, standard_format
from beitcli.cli.options import BatchOptions, InputOptions, ModelOptions, OutputOptions, examples, with_options
from beitcli.cli.resume import Job, preview, resume
from beitcli.cli.run import Destination, check, run
from beitcli.errors import ExitStatus
from beitcli.outputs.destination import check_writable, is_stream, replaced_file, standard_output, stream_to, writing
from beitcli.outputs.lock import alone

EXAMPLES = examples(
    "beit batch ./images --out preds.csv",
    "beit batch ./archive -m base-224 -e jpg,png -E thumbs --out labels.jsonl",
    "find /share -name '*.jpg' -print0 | beit batch --files-from - -0 --out preds.tsv",
    "beit batch ./images --label cat --threshold 0.5 | wc -l",
)


@with_options
def batch(inputs: InputOptions, model: ModelOptions, output: OutputOptions, batch: BatchOptions) -> None:
    """Classify many pictures into a file, or to standard output.

    Run it again, and it does only what is missing, changed or worth another try.
    """
    notices.set_up(output.quiet, output.verbose)
    check(inputs, model, output)
    batch.check()
    if batch.out == "-":
        destination = Destination(standard_output, standard_format(output), padded=True)
        raise typer.Exit(run(inputs, model, output, destination, batch.part()))
    file_format = format_of_file(batch.out, output)
    check_writable(batch.out)
    if is_stream(batch.out):
        destination = Destination(partial(stream_to, batch.out), file_format, padded=True)
        raise typer.Exit(run(inputs, model, output, destination, batch.part()))
    target = realpath(batch.out)
    job = Job(inputs, model, output, batch, target)
    if batch.dry_run:
        with writing():
            print("\n".join(f"{count} {state}" for state, count in preview(job).items()))  # noqa: T201
        raise typer.Exit(ExitStatus.OK)
    with alone(batch.out, batch.wait):
        if batch.no_ledger:
            destination = Destination(partial(replaced_file, target, keeps_part=True), file_format, padded=True)
            raise typer.Exit(run(inputs, model, output, destination, batch.part()))
        raise typer.Exit(resume(job, file_format))
