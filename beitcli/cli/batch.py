"""`beit batch`: records in a file, or streamed without `--out`."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from os.path import realpath

import typer

from beitcli.cli import notices
from beitcli.cli.formats import FileFormat, format_of_file, standard_format
from beitcli.cli.options import BatchOptions, InputOptions, ModelOptions, OutputOptions, examples, with_options
from beitcli.cli.resume import Job, Work, print_preview, resume
from beitcli.cli.run import Destination, check, choose, layout_of, run
from beitcli.cli.tasks import classification_task
from beitcli.outputs.destination import (
    check_not_overwritten,
    check_writable,
    is_stream,
    replaced_file,
    standard_output,
    stream_to,
    writing,
)
from beitcli.outputs.lock import exclusive
from beitcli.outputs.writers import writer
from beitcli.records import Prediction, Record, Score

EXAMPLES = examples(
    "beit batch ./images --out preds.csv",
    "beit batch ./archive -m base-224 -e jpg,png -E thumbs --out labels.jsonl",
    "find /share -name '*.jpg' -print0 | beit batch --files-from - -0 --out preds.tsv",
    "beit batch ./images --label cat -f jsonl | jq -r .source",
)


@with_options
def batch(inputs: InputOptions, model: ModelOptions, output: OutputOptions, batch: BatchOptions) -> None:
    """Classify many images into a file, or to standard output.

    Run it again to process only missing or changed images and failures that may pass.
    """
    notices.set_up(output.quiet, output.verbose)
    check(inputs, model, output)
    batch.check()
    if batch.out == "-":
        destination = Destination(standard_output, standard_format(output), padded=True)
        raise typer.Exit(run(inputs, model, output, destination, batch.part()))
    file_format = format_of_file(batch.out, output)
    check_not_overwritten([batch.out], inputs.files)
    check_writable(batch.out)
    if is_stream(batch.out):
        destination = Destination(partial(stream_to, batch.out), file_format, padded=True)
        raise typer.Exit(run(inputs, model, output, destination, batch.part()))
    target = realpath(batch.out)
    job, make_work = Job(inputs, model, output, batch, target), partial(_classification, file_format=file_format)
    if batch.dry_run:
        raise typer.Exit(print_preview(job, make_work))
    with exclusive(batch.out, batch.wait):
        if batch.no_ledger:
            stream = partial(replaced_file, target, keeps_part=True)
            destination = Destination(stream, file_format, padded=True, replaces=batch.out)
            raise typer.Exit(run(inputs, model, output, destination, batch.part()))
        raise typer.Exit(resume(job, make_work))


@contextmanager
def _classification(job: Job, file_format: FileFormat) -> Iterator[Work[tuple[Score, ...], Prediction]]:
    """The task of `batch`, and the writer of its output."""
    checkpoint, selection = choose(job.model, job.output)
    layout = layout_of(file_format, job.output, checkpoint)

    def write(_: int, records: Iterator[list[Record]]) -> None:
        with replaced_file(job.target, keeps_part=False) as stream, writer(stream, layout) as rows:
            for part in records:
                with writing():
                    rows.write(selection.of(part))

    yield Work(
        task=classification_task("batch", checkpoint, job.output.top_k),
        outputs=(job.target,),
        appearance=f"{layout} {selection}",
        write=write,
    )
