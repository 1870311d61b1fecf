"""`beit embed`: the features of many pictures in a file."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from beitcli.cli import notices
from beitcli.cli.formats import by_suffix
from beitcli.cli.options import BatchOptions, InputOptions, ModelOptions, OutputOptions, Without, examples, with_options
from beitcli.cli.question import encoding
from beitcli.cli.resume import Job, Work, resume, say_what_would_be_done
from beitcli.cli.run import beit_recipe, check, open_beit, say_if_demo
from beitcli.errors import UsageError
from beitcli.model.features import Encoding, Pool, shape_of
from beitcli.outputs.destination import check_apart, check_writable
from beitcli.outputs.features import SUFFIXES, FeatureFile
from beitcli.outputs.lock import alone
from beitcli.outputs.vectors import Vectors
from beitcli.records import Embedding, printable

if TYPE_CHECKING:
    import numpy as np

EXAMPLES = examples(
    "beit embed ./images --out features.npy",
    "beit embed ./images -m base-224 --normalize --half --out features.parquet",
    "beit embed photo.jpg --pool patches --out patches.npz",
)


@with_options
def embed(
    inputs: InputOptions,
    model: ModelOptions,
    output: Annotated[OutputOptions, Without("top_k", "threshold", "label", "format", "color")],
    batch: Annotated[BatchOptions, Without("out")],
    out: Annotated[
        str | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="Where the features go: .npy, .npz or .parquet.", show_default=False
        ),
    ] = None,
    pool: Annotated[
        Pool,
        typer.Option("--pool", help="The mean of the final patch states, the first state, or every patch (float16)."),
    ] = "mean",
    normalize: Annotated[
        bool, typer.Option("--normalize", help="Scale features to length 1, for search by cosine.", show_default=False)
    ] = False,
    half: Annotated[bool, typer.Option("--half", help="float16 instead of float32.", show_default=False)] = False,
) -> None:
    """Write the features of many pictures into an .npy, .npz or .parquet file.

    Run it again, and it does only what is missing, changed or worth another try.
    """
    notices.set_up(output.quiet, output.verbose)
    check(inputs, model, output)
    batch = replace(batch, out=out or "-")
    batch.check()
    _check_suffix(batch)
    check_writable(batch.out)
    job = Job(inputs, model, output, batch, os.path.realpath(batch.out))
    outputs = FeatureFile(job.target, (), "").outputs
    check_apart(outputs, inputs.files)
    for path in outputs:
        check_writable(path)
    work_of = partial(_encoding, kind=Encoding(pool, normalize, half or pool == "patches"))
    if batch.dry_run:
        raise typer.Exit(say_what_would_be_done(job, work_of))
    with alone(batch.out, batch.wait):
        raise typer.Exit(resume(job, work_of))


def _check_suffix(batch: BatchOptions) -> None:
    """Raises UsageError for what features cannot be written to."""
    if batch.streams:
        raise UsageError("features need a file", f"--out FILE, which ends with {', '.join(SUFFIXES)}")
    suffix = os.path.splitext(batch.out)[1].lower()
    if suffix not in SUFFIXES:
        name = printable(batch.out)
        raise UsageError(f"`{name}`: features have no format `{printable(suffix)}`", f"one of {', '.join(SUFFIXES)}")
    if suffix == ".parquet":
        by_suffix(batch.out)  # needs pyarrow


@contextmanager
def _encoding(job: Job, kind: Encoding) -> "Iterator[Work[np.ndarray[Any, Any], Embedding]]":
    """What `embed` asks of its pictures."""
    checkpoint = open_beit(job.model)
    say_if_demo(checkpoint)
    shape = shape_of(checkpoint, beit_recipe(job.model, checkpoint), kind.pool)
    file = FeatureFile(job.target, shape, kind.dtype)
    path = f"{job.ledger}-features" if job.ledger else None

    with closing(Vectors(path, job.target, shape, kind.dtype)) as vectors:
        yield Work(
            question=encoding("embed", checkpoint, kind, vectors),
            outputs=file.outputs,
            appearance="",
            write=file.write,
        )
