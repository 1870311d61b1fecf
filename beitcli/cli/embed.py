"""`beit embed`: features of many images in a file."""

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
from beitcli.cli.resume import Job, Work, print_preview, resume
from beitcli.cli.run import beit_preprocessing, check, open_beit, warn_if_demo
from beitcli.cli.tasks import encoding_task
from beitcli.errors import UsageError
from beitcli.model.features import Encoding, Pool, shape_of
from beitcli.outputs.destination import check_not_overwritten, check_writable
from beitcli.outputs.features import SUFFIXES, FeatureFile
from beitcli.outputs.lock import exclusive
from beitcli.outputs.vectors import FeatureCodec
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
    """Write the features of many images into an .npy, .npz or .parquet file.

    Run it again to process only missing or changed images and failures that may pass.
    """
    notices.set_up(output.quiet, output.verbose)
    check(inputs, model, output)
    batch = replace(batch, out=out or "-")
    batch.check()
    _check_suffix(batch)
    check_writable(batch.out)
    job = Job(inputs, model, output, batch, os.path.realpath(batch.out))
    outputs = FeatureFile(job.target, (), "").outputs
    check_not_overwritten(outputs, inputs.files)
    for path in outputs:
        check_writable(path)
    make_work = partial(_encoding, kind=Encoding(pool, normalize, half or pool == "patches"))
    if batch.dry_run:
        raise typer.Exit(print_preview(job, make_work))
    with exclusive(batch.out, batch.wait):
        raise typer.Exit(resume(job, make_work))


def _check_suffix(batch: BatchOptions) -> None:
    """Raises UsageError for outputs that cannot hold features."""
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
    """The task of `embed`, and the writer of its output."""
    checkpoint = open_beit(job.model)
    warn_if_demo(checkpoint)
    shape = shape_of(checkpoint, beit_preprocessing(job.model, checkpoint), kind.pool)
    file = FeatureFile(job.target, shape, kind.dtype)
    path = f"{job.ledger}-features" if job.ledger else None

    with closing(FeatureCodec(path, job.target, shape, kind.dtype)) as vectors:
        yield Work(
            task=encoding_task("embed", checkpoint, kind, vectors),
            outputs=file.outputs,
            appearance="",
            write=file.write,
        )
