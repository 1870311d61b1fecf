"""`beit embed`: the features of many images in a file."""

import os
from dataclasses import replace
from typing import Annotated

import typer

from beitcli.cli import notices, progress
from beitcli.cli.exit_status import exit_status
from beitcli.cli.options import OutputOptions, Without, examples, with_options
from beitcli.cli.preview import print_preview
from beitcli.errors import UsageError
from beitcli.jobs.embed import embed as run
from beitcli.jobs.embed import preview_embedding
from beitcli.jobs.requests import Compute, Inputs, Limits, ModelChoice, Request, Resume
from beitcli.model.features import Encoding, Pool
from beitcli.outputs.destination import check_not_overwritten, check_writable
from beitcli.outputs.feature_files import SUFFIXES, FeatureFile, check_suffix

EXAMPLES = examples(
    "beit embed ./images --out features.npy",
    "beit embed ./images -m base-224 --normalize --half --out features.parquet",
    "beit embed photo.jpg --pool patches --out patches.npz",
)


@with_options
def embed(
    inputs: Inputs,
    limits: Limits,
    model: ModelChoice,
    compute: Compute,
    output: Annotated[OutputOptions, Without("format", "bom", "color")],
    resume: Annotated[Resume, Without("out")],
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
    layer: Annotated[
        int | None,
        typer.Option(
            "--layer", metavar="N", min=1, help="States behind layer N, from 1 [default: the last].", show_default=False
        ),
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="float16 instead of float32.", show_default=False)] = False,
) -> None:
    """Write the features of many images into an .npy, .npz or .parquet file.

    Run it again to process only missing or changed images and failures that may pass.
    """
    notices.set_up(output.quiet, output.verbose)
    resume = replace(resume, out=out or "-")
    target, tolerated = os.path.realpath(resume.out), output.tolerated()
    request = Request(inputs, limits, model, compute, resume=resume, target=target, tolerated=tolerated)
    request.check()
    _check_suffix(resume)
    check_writable(resume.out)
    outputs = FeatureFile(request.target, (), "").outputs
    check_not_overwritten(outputs, inputs.files)
    for path in outputs:
        check_writable(path)
    kind = Encoding(pool, normalize, half or pool == "patches", layer)
    if resume.dry_run:
        print_preview(preview_embedding(request, kind))
        return
    with progress.observer(output.quiet) as observer:
        raise typer.Exit(exit_status(run(request, kind, observer), output))


def _check_suffix(resume: Resume) -> None:
    """Raise UsageError for outputs that cannot hold features."""
    if resume.streams:
        raise UsageError("features need a file", f"--out FILE, which ends with {', '.join(SUFFIXES)}")
    check_suffix(resume.out)
