"""`beit train`: a model for the user's own classes."""

import importlib.util
import os
import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from beitcli.cli import notices
from beitcli.cli.options import ModelOptions, examples
from beitcli.errors import UsageError
from beitcli.model.memory import use_one_heap
from beitcli.outputs.lock import alone
from beitcli.training.examples import read_labelled, split
from beitcli.training.workplace import Workplace

if TYPE_CHECKING:
    from beitcli.training.loop import Pace

EXAMPLES = examples("beit train ./flowers --from-scratch small --out my-model")


def train(
    pictures: Annotated[
        str,
        typer.Argument(metavar="DIR", help="A folder with a folder of pictures for each class.", show_default=False),
    ],
    out: Annotated[str, typer.Option("--out", "-o", metavar="DIR", help="Where the model goes, complete or not at all.")],
    val: Annotated[
        str | None, typer.Option("--val", metavar="DIR|FILE", help="Pictures to validate with [default: a share of DIR].")
    ] = None,
    val_share: Annotated[
        float, typer.Option("--val-share", metavar="SHARE", min=0.001, max=0.9, help="The share held out.")
    ] = 0.1,
    from_scratch: Annotated[
        Literal["tiny", "small"] | None, typer.Option("--from-scratch", help="Train a new model of this size.")
    ] = None,
    image_size: Annotated[int | None, typer.Option("--image-size", metavar="N", min=1, help="Its pictures' side.")] = None,
    patch_size: Annotated[int, typer.Option("--patch-size", metavar="N", min=1, help="Its patches' side.")] = 4,
    epochs: Annotated[int, typer.Option("--epochs", metavar="N", min=1, help="How often each picture is seen.")] = 30,
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", metavar="N", min=1, help="Pictures a step.")] = 256,
    rate: Annotated[float, typer.Option("--lr", metavar="RATE", help="Peak learning rate.")] = 1.5e-3,
    max_errors: Annotated[
        int, typer.Option("--max-errors", metavar="N", min=0, help="Train although so many pictures cannot be read.")
    ] = 0,
    device: Annotated[
        str, typer.Option(metavar="auto|cpu|cuda[:N]|mps", envvar="BEIT_DEVICE", help="Where the model runs.")
    ] = "auto",
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="What all random choices follow from.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notices or progress; errors only.", show_default=False)] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say what is chosen.", show_default=False)] = False,
) -> None:
    """Train a model for your own classes."""
    notices.set_up(quiet, verbose)
    if importlib.util.find_spec("accelerate") is None:
        raise UsageError("training needs the extra `train`", "pip install 'beitcli[train]'")
    if not from_scratch:
        raise UsageError("nothing says how to train", "--from-scratch small")
    ModelOptions(device=device).check()
    work = Workplace(out.rstrip("/"))
    work.check()
    parts = split(read_labelled(pictures), read_labelled(val) if val else None, val_share, seed)
    use_one_heap()  # before torch starts threads
    from beitcli.model.runtime import usable_cores
    from beitcli.training.train import Machine, ScratchPlan, train_from_scratch

    plan = ScratchPlan(from_scratch, image_size or 32, patch_size, epochs, batch_size, rate, seed)
    machine = Machine(device, "auto", min(usable_cores(), 8), max_errors)
    command = shlex.join(["beit", *sys.argv[1:]])
    with alone(work.out, wait=False), notices.pace(quiet) as tell:
        facts = train_from_scratch(plan, parts, work, machine, command, tell)
    if not quiet:
        notices.say(
            f"{100 * facts.top1:.2f} % of {facts.validated} pictures right: the model is in {work.out}"
        )
