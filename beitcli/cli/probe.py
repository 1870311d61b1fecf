"""The linear probe, which is what `beit train` does unless it is told otherwise."""

import time
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from os.path import realpath
from typing import TYPE_CHECKING, Literal

from beitcli.cli import notices
from beitcli.cli.options import BatchOptions, InputOptions, ModelOptions, OutputOptions
from beitcli.cli.question import encoding
from beitcli.cli.resume import Job, answered
from beitcli.cli.run import beit_recipe, open_beit, say_if_demo
from beitcli.model.checkpoint import Checkpoint
from beitcli.model.features import Encoding, shape_of
from beitcli.model.memory import use_one_heap
from beitcli.outputs.lock import alone
from beitcli.outputs.summary import Tally
from beitcli.outputs.vectors import Vectors
from beitcli.records import Embedding, Failure, printable
from beitcli.training.examples import Split, check_several
from beitcli.training.workplace import Workplace

if TYPE_CHECKING:
    from beitcli.model.recipe import Recipe

_SETTINGS = {"way": "a linear probe"}
"""Its features are told apart by their ledger."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What is probed and how, as the options say."""

    split: Split
    inputs: InputOptions
    model: ModelOptions
    pool: Literal["mean", "cls"]
    share: float | None
    most_errors: int
    seed: int
    command: str
    quiet: bool


def probe(asked: Probe, work: Workplace) -> None:
    """Makes the model, complete or not at all; features that it has are kept for the next run until then.

    Raises UsageError where the pictures or the model do not make one.
    """
    started = time.monotonic()
    if not asked.split.validation:
        check_several([example.target for example in asked.split.training])
    base = open_beit(asked.model)
    recipe = beit_recipe(asked.model, base)
    say_if_demo(base)
    with alone(work.out, wait=False):
        if work.begun(_SETTINGS) is None:
            work.start()
            work.begin(_SETTINGS, {})
        use_one_heap()  # before torch starts threads
        from beitcli.training.pooled import pooled
        from beitcli.training.probe import ProbePlan, train_probe

        checkpoint = pooled(base, asked.pool)
        records = _features(asked, checkpoint, recipe, work)
        plan = ProbePlan(asked.share, asked.most_errors, asked.seed, asked.command, started)
        facts, strength = train_probe(plan, asked.split, records, checkpoint, recipe, work)
    if not asked.quiet:
        right = f"{100 * facts.right(1):.2f} % of {len(facts.ranks)} pictures right"
        place = printable(work.out)
        notices.say(f"{right} at a strength of {strength:.3g}, {facts.seconds:.0f} s: the model is in `{place}`")


def _features(asked: Probe, checkpoint: Checkpoint, recipe: "Recipe", work: Workplace) -> list[Embedding | Failure]:
    """A record for each picture, those to learn from first."""
    target = realpath(work.path("features"))
    job = Job(asked.inputs, asked.model, OutputOptions(quiet=asked.quiet), BatchOptions(out=target, prune=True), target)
    kind, shape = Encoding(asked.pool), shape_of(checkpoint, recipe, asked.pool)
    found = (example.found for example in (*asked.split.training, *asked.split.validation))
    with closing(Vectors(f"{job.ledger}-features", target, shape, kind.dtype)) as vectors:
        question = encoding("train", checkpoint, kind, vectors)
        with answered(job, found, question, Tally()) as ledger:
            return list(chain.from_iterable(ledger.records()))
