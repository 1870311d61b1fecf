"""`beit pretrain`: an encoder from images without labels."""

import dataclasses
import shlex
import sys
from functools import partial
from typing import Annotated

import typer

from beitcli.cli import notices, progress
from beitcli.cli.gpu import one_gpu
from beitcli.cli.options import FLAGS, Without, examples, with_options
from beitcli.cli.training_options import TRAINING_FLAGS
from beitcli.jobs import pretrain as job
from beitcli.jobs.pretraining_requests import Pretraining, PretrainingRequest
from beitcli.jobs.requests import Compute, Inputs, Limits
from beitcli.records import printable

EXAMPLES = examples(
    "beit pretrain ./photos --size tiny --out my-encoder",
    "beit pretrain ./photos -m base-224-pt22k --tokenizer dalle --out my-encoder",
    "beit train ./labelled -m ./my-encoder --out my-model",
)


@partial(with_options, flags=FLAGS | TRAINING_FLAGS)
def pretrain(
    inputs: Inputs,
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="DIR", help="Folder of the model, written complete or not at all.")
    ],
    recipe: Pretraining,
    limits: Limits,
    compute: Annotated[Compute, Without("batch_size", "fp16", "compile", "check_int8")],
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Replace the model in --out, once the new one is complete.", show_default=False),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No notices or progress; errors only.", show_default=False)
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Report the chosen settings.", show_default=False)
    ] = False,
) -> None:
    """Pre-train a BEiT on images without labels, as the paper does: it learns to predict tokens of masked patches.

    The result is an encoder for `beit train` and `beit embed`. The same command resumes a training that was stopped.
    """
    notices.set_up(quiet, verbose)
    command = shlex.join(["beit", *sys.argv[1:]])
    request = PretrainingRequest(inputs, out, recipe, limits, compute, command=command, replace=replace)
    request = dataclasses.replace(request, compute=dataclasses.replace(compute, device=one_gpu(compute.device)))
    with progress.observer(quiet) as observer:
        pretrained = job.pretrain(request, observer)
    if not quiet:
        for line in _summary(pretrained):
            notices.print_line(line)


def _summary(pretrained: job.Pretrained) -> list[str]:
    facts, out = pretrained.facts, printable(pretrained.out)
    scores = facts.scores
    model = out if "/" in out else f"./{out}"
    return [
        f"on masked patches of {facts.held_out} images held out: loss {scores.loss:.3f} (entropy of the tokens "
        f"{scores.entropy:.3f}), accuracy {100 * scores.accuracy:.2f} % (the most frequent token "
        f"{100 * scores.most_frequent:.2f} %), {scores.used} of {facts.vocabulary} tokens, "
        f"{facts.seconds / 60:.1f} minutes",
        f"the model is in `{out}`; next: `beit train ./labelled -m {shlex.quote(model)} --out my-model`",
    ]
