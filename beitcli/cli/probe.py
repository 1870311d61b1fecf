"""The linear probe, the default of `beit train`."""

import time
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from os.path import realpath
from typing import TYPE_CHECKING, Literal

from beitcli.cli import notices
from beitcli.cli.options import BatchOptions, InputOptions, ModelOptions, OutputOptions
from beitcli.cli.resume import Job, updated_ledger
from beitcli.cli.run import beit_preprocessing, open_beit, warn_if_demo
from beitcli.cli.tasks import encoding_task
from beitcli.model.checkpoint import Checkpoint
from beitcli.model.features import Encoding, shape_of
from beitcli.model.memory import use_one_heap
from beitcli.outputs.lock import exclusive
from beitcli.outputs.summary import Tally
from beitcli.outputs.vectors import FeatureCodec
from beitcli.records import Embedding, Failure, printable
from beitcli.training.examples import Split, check_can_hold_out
from beitcli.training.work_dir import WorkDir

if TYPE_CHECKING:
    from beitcli.model.preprocessing import Preprocessing

_SETTINGS = {"way": "a linear probe"}
"""The ledger identifies the settings of the features."""


@dataclass(frozen=True, slots=True)
class ProbeOptions:
    """Options of one linear probe; `share` is the share held out for validation."""

    split: Split
    inputs: InputOptions
    model: ModelOptions
    pool: Literal["mean", "cls"]
    share: float | None
    most_errors: int
    seed: int
    command: str
    quiet: bool


def run_probe(options: ProbeOptions, work: WorkDir) -> None:
    """Train the probe and write its model, complete or not at all; until then, keep the features for the next run.

    Raises UsageError if the images or the model are not suitable.
    """
    started = time.monotonic()
    if not options.split.validation:
        check_can_hold_out([example.target for example in options.split.training])
    base = open_beit(options.model)
    preprocessing = beit_preprocessing(options.model, base)
    warn_if_demo(base)
    with exclusive(work.out, wait=False):
        if work.begun(_SETTINGS) is None:
            work.start()
            work.begin(_SETTINGS, {})
        use_one_heap()  # before torch starts threads
        from beitcli.training.pooled import pooled
        from beitcli.training.probe import ProbePlan, train_probe

        checkpoint = pooled(base, options.pool)
        records = _features(options, checkpoint, preprocessing, work)
        plan = ProbePlan(options.share, options.most_errors, options.seed, options.command, started)
        facts, strength = train_probe(plan, options.split, records, checkpoint, preprocessing, work)
    if not options.quiet:
        accuracy = f"{100 * facts.accuracy(1):.2f} % of {len(facts.ranks)} images correct"
        place = printable(work.out)
        notices.print_line(
            f"{accuracy} at a strength of {strength:.3g}, {facts.seconds:.0f} s: the model is in `{place}`"
        )


def _features(
    options: ProbeOptions, checkpoint: Checkpoint, preprocessing: "Preprocessing", work: WorkDir
) -> list[Embedding | Failure]:
    """One record per image, training images first."""
    target = realpath(work.path("features"))
    job = Job(
        options.inputs, options.model, OutputOptions(quiet=options.quiet), BatchOptions(out=target, prune=True), target
    )
    kind, shape = Encoding(options.pool), shape_of(checkpoint, preprocessing, options.pool)
    found = (example.found for example in (*options.split.training, *options.split.validation))
    with closing(FeatureCodec(f"{job.ledger}-features", target, shape, kind.dtype)) as vectors:
        task = encoding_task("train", checkpoint, kind, vectors)
        with updated_ledger(job, found, task, Tally()) as ledger:
            return list(chain.from_iterable(ledger.records()))
