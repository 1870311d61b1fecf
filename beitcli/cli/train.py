"""`beit train`: a model for the user's own classes."""

import dataclasses
import shlex
import sys
from collections.abc import Iterator
from functools import partial
from typing import Annotated

import typer

from beitcli.cli import notices, progress
from beitcli.cli.gpu import one_gpu
from beitcli.cli.options import FLAGS, Without, examples, with_options
from beitcli.cli.training_options import TRAINING_FLAGS
from beitcli.errors import UsageError
from beitcli.jobs import train as job
from beitcli.jobs.gallery_page import check_page
from beitcli.jobs.requests import Compute, Inputs, Limits, ModelChoice
from beitcli.jobs.training_requests import Recipe, TrainingImages, TrainingRequest
from beitcli.records import printable

MISTAKES = 5
"""Most mistakes that the summary names."""

EXAMPLES = examples(
    "beit train ./flowers -m base-224 --out my-flowers",
    "beit train ./flowers --finetune -m base-224 --out my-better-flowers",
    "beit train cifar/train --from-scratch small --val cifar/test --out my-model",
    "beit classify photo.jpg -m ./my-flowers",
)


@partial(with_options, flags=FLAGS | TRAINING_FLAGS)
def train(
    context: typer.Context,
    images: TrainingImages,
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="DIR", help="Folder of the model, written complete or not at all.")
    ],
    recipe: Recipe,
    inputs: Annotated[Inputs, Without("inputs", "files_from", "null")],
    limits: Limits,
    model: Annotated[ModelChoice, Without("preprocess")],
    compute: Annotated[Compute, Without("batch_size", "fp16", "compile", "check_int8")],
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Replace the model in --out, once the new one is complete.", show_default=False),
    ] = False,
    page: Annotated[
        str | None,
        typer.Option(
            "--report", metavar="FILE.html", help="Write a page of the validated images here, as `beit report` does."
        ),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No notices or progress; errors only.", show_default=False)
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Report the chosen settings.", show_default=False)
    ] = False,
) -> None:
    """Train a model for your own classes: a linear probe of --model, or with --finetune or --from-scratch all layers.

    The same command resumes a training that was stopped.
    """
    notices.set_up(quiet, verbose)
    request = TrainingRequest(
        images,
        out,
        recipe,
        inputs.walk(),
        limits,
        model,
        compute,
        command=_command(context, model),
        replace=replace,
    )
    if recipe.from_scratch:
        _check_no_model_named(context, model)
    if not recipe.is_probe:
        compute = dataclasses.replace(compute, device=one_gpu(compute.device))
        request = dataclasses.replace(request, compute=compute)
    if page is not None:
        check_page(page)
    with progress.observer(quiet) as observer:
        trained = job.train(request, observer)
        if page is not None:
            job.show_validated(trained, page, request, observer)
    if not quiet:
        for line in _summary(trained):
            notices.print_line(line)


def _summary(trained: job.Trained) -> Iterator[str]:
    from beitcli.training.validation import mistakes_of

    facts, out = trained.facts, printable(trained.out)
    mistakes = mistakes_of(facts.validated)
    if mistakes:
        yield f"the most confident of {len(mistakes)} mistakes (`{out}/validation.csv` has all predictions):"
    for each in mistakes[:MISTAKES]:
        true, predicted = (printable(facts.classes[number]) for number in (each.true, each.predicted))
        yield f"  {printable(each.path)}: {true}, predicted as {predicted} ({each.confidence:.2f})"
    accuracy = f"{100 * facts.accuracy(1):.2f} % of {len(facts.validated)} images correct"
    behind = "" if trained.layer is None else f" behind layer {trained.layer}"
    found = ""
    if trained.strength is not None:
        found = f"{behind} at a strength of {trained.strength:.3g}, {facts.seconds:.0f} s"
    refitted = ", fitted again to all images, these too" if facts.refitted else ""
    yield f"{accuracy}{found}: the model is in `{out}`{refitted}"


def _check_no_model_named(context: typer.Context, model: ModelChoice) -> None:
    source = context.get_parameter_source("model")
    if model.revision or (source and source.name == "COMMANDLINE"):
        raise UsageError("--from-scratch takes no --model or --revision", "leave them out, or use --finetune")


def _command(context: typer.Context, model: ModelChoice) -> str:
    """The command line, with the model from the environment."""
    source = context.get_parameter_source("model")
    named = ["--model", model.model] if source and source.name == "ENVIRONMENT" else []
    return shlex.join(["beit", *sys.argv[1:], *named])
