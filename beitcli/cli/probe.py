"""The linear probe, which is what `beit train` does unless it is told otherwise."""

import shlex
import sys
import time
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from beitcli import signals
from beitcli.cli import notices
from beitcli.cli.options import InputOptions, ModelOptions, OutputOptions
from beitcli.cli.run import Ahead, answers_to, beit_recipe, open_beit, say_if_demo, settings_for
from beitcli.model.checkpoint import Checkpoint
from beitcli.model.features import Encoding
from beitcli.model.memory import use_one_heap
from beitcli.outputs.lock import alone
from beitcli.records import Embedding, Failure, printable
from beitcli.timings import Timings
from beitcli.training.examples import Split
from beitcli.training.workplace import Workplace

if TYPE_CHECKING:
    import numpy as np

    from beitcli.pipeline import Settings


@dataclass(frozen=True, slots=True)
class Probe:
    """What is probed and how, as the options say."""

    split: Split
    model: ModelOptions
    pool: Literal["mean", "cls"]
    share: float | None
    most_errors: int
    seed: int
    quiet: bool


def probe(asked: Probe, work: Workplace) -> None:
    """Makes the model, complete or not at all. Raises UsageError where the pictures or the model do not make one."""
    started = time.monotonic()
    base = open_beit(asked.model)
    recipe = beit_recipe(asked.model, base)
    say_if_demo(base)
    with alone(work.out, wait=False):
        work.begun({"way": "a linear probe"})  # which goes on with nothing, and takes no unfinished training away
        work.leave()
        use_one_heap()  # before torch starts threads
        from beitcli.training.pooled import pooled
        from beitcli.training.probe import ProbePlan, train_probe

        checkpoint = pooled(base, asked.pool)
        records = _features(asked, checkpoint)
        plan = ProbePlan(asked.share, asked.most_errors, asked.seed, shlex.join(["beit", *sys.argv[1:]]), started)
        try:
            facts, strength = train_probe(plan, asked.split, records, checkpoint, recipe, work)
        except BaseException:
            work.leave()
            raise
    if not asked.quiet:
        right = f"{100 * facts.right(1):.2f} % of {len(facts.ranks)} pictures right"
        place = printable(work.out)
        notices.say(f"{right} at a strength of {strength:.3g}, {facts.seconds:.0f} s: the model is in `{place}`")


def _features(asked: Probe, checkpoint: Checkpoint) -> list[Embedding | Failure]:
    """A record for each picture, those to learn from first."""

    def settings_of(ahead: Ahead) -> "Settings[np.ndarray[Any, Any], Embedding]":
        from beitcli.pipeline import encoding

        model = replace(asked.model, compile=False)
        of_a_classifier: Settings[Any, Any] = settings_for(
            InputOptions(), model, OutputOptions(), checkpoint, ahead, padded=True, digest=True
        )
        return replace(of_a_classifier, task=encoding(Encoding(asked.pool)))

    found = (example.found for example in (*asked.split.training, *asked.split.validation))
    records: list[Embedding | Failure] = []
    with (
        notices.progress(asked.quiet) as progress,
        closing(answers_to(found, settings_of, Timings())) as answers,
    ):
        for answered in answers:
            records.extend(answered)
            signals.check()
            progress.update(len(answered))
    return records
