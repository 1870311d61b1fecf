"""Features of labelled pictures -> an ordinary checkpoint folder with a new linear layer."""

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from beitcli.model.recipe import Recipe
from beitcli.records import Embedding, Failure
from beitcli.training.card import Facts, model_card
from beitcli.training.examples import SHARE, Example, Split, check_several, dealt, held_out
from beitcli.training.pooled import PooledCheckpoint, save
from beitcli.training.reading import Reading, check_readings
from beitcli.training.regression import STRENGTHS, Array, Fold, fitted, validated
from beitcli.training.workplace import Workplace

log = logging.getLogger(__name__)

CROSS_VALIDATED = 5000
"""Different pictures below which all are validated with in turn: a tenth of a few hundred says too little."""

PARTS = 5

_STATES = {"mean": "the mean of its final patch states", "cls": "its first final state"}


@dataclass(frozen=True, slots=True)
class ProbePlan:
    """What a probe is asked for; without a `share` the number of pictures decides how they are validated.

    `started` is when, by the monotonic clock.
    """

    share: float | None
    most_errors: int
    seed: int
    command: str
    started: float


@dataclass(frozen=True, slots=True)
class _Examples:
    """Pictures that could be read: features (examples, width) in float32, the numbers of their classes, SHA-256."""

    features: Array
    targets: Array
    digests: tuple[bytes, ...]


def train_probe(
    plan: ProbePlan,
    split: Split,
    records: Sequence[Embedding | Failure],
    checkpoint: PooledCheckpoint,
    recipe: Recipe,
    work: Workplace,
) -> tuple[Facts, float]:
    """Chooses a strength, fits, writes the folder, and gives back what its card says, and the strength.

    `records` are those of the pictures to learn from, and behind them of those to validate with. Raises UsageError
    where they do not suffice.
    """
    learnt, shown = records[: len(split.training)], records[len(split.training) :]
    doubles = check_readings(split, _reading(learnt), _reading(shown), plan.most_errors)
    examples = _examples([*split.training, *split.validation], records)
    ours = len(_reading(learnt).readable)
    numbers = np.arange(len(examples.targets))
    folds = [(numbers[:ours], numbers[ours:])] if split.validation else _folds(examples, plan)
    unvalidated = _unvalidated(examples, folds, split.classes)
    validation = validated(examples.features, examples.targets, folds)
    strength = STRENGTHS[validation.best]
    layer = fitted(examples.features, examples.targets, strength)
    how = "in five parts, each by a layer of the other four" if len(folds) > 1 else "by a layer of the others"
    without = f", without any of {unvalidated} of the {len(split.classes)} classes" if unvalidated else ""
    doubled = f", which had learnt from {doubles} of them" if doubles else ""
    facts = Facts(
        command=plan.command,
        recipe=_text(checkpoint, strength, validation.right),
        classes=split.classes,
        learnt_from=len(examples.targets),
        ranks=validation.places[validation.best].tolist(),
        held_out=f"that were held out ({how}{doubled}{without}; the model has learnt from all since)",
        seed=plan.seed,
        seconds=time.monotonic() - plan.started,
    )
    folder = work.path("model")
    save(checkpoint, layer, split.classes, recipe, folder)
    work.finish(folder, model_card(os.path.basename(work.out), facts))
    return facts, strength


def _reading(records: Sequence[Embedding | Failure]) -> Reading:
    embeddings = [(number, one) for number, one in enumerate(records) if isinstance(one, Embedding)]
    return Reading(
        tuple(number for number, _ in embeddings),
        tuple(one.identity.digest or b"" for _, one in embeddings),
        tuple(one for one in records if isinstance(one, Failure)),
    )


def _examples(asked: Sequence[Example], records: Sequence[Embedding | Failure]) -> _Examples:
    read = [(one, example) for one, example in zip(records, asked, strict=True) if isinstance(one, Embedding)]
    return _Examples(
        np.stack([one.features for one, _ in read]),
        np.array([example.target for _, example in read]),
        tuple(one.identity.digest or b"" for one, _ in read),
    )


def _folds(examples: _Examples, plan: ProbePlan) -> list[Fold]:
    """Who learns and who validates: identical pictures of a class together, and of a class with one picture none.

    Raises UsageError where no class has two.
    """
    number: dict[tuple[bytes, int], int] = {}
    pictures = zip(examples.digests, examples.targets.tolist(), strict=True)
    picture = np.array([number.setdefault(each, len(number)) for each in pictures])
    targets = [target for _, target in number]
    check_several(targets)
    if plan.share is None and len(number) < CROSS_VALIDATED:
        parts = dealt(targets, PARTS, plan.seed)
    else:
        parts = [held_out(targets, plan.share or SHARE, plan.seed)]
    chosen = (np.isin(picture, part) for part in parts if part)
    return [(np.flatnonzero(~validates), np.flatnonzero(validates)) for validates in chosen]


def _unvalidated(examples: _Examples, folds: Sequence[Fold], classes: Sequence[str]) -> int:
    """How many classes have no picture to validate with, which is said."""
    lone = np.setdiff1d(examples.targets, np.concatenate([examples.targets[part] for _, part in folds]))
    if lone.size:
        name = classes[lone[0]]
        log.warning("%d of %d classes have no picture to validate with, such as %s", lone.size, len(classes), name)
    return lone.size


def _text(checkpoint: PooledCheckpoint, strength: float, rights: Array) -> str:
    """How it was trained, with what each strength came to."""
    rows = [f"| {each:.3g} | {100 * right:.2f} % |" for each, right in zip(STRENGTHS, rights, strict=True)]
    head = (
        f"A linear probe: `{checkpoint.name}` as it is, with a new linear layer on {_STATES[checkpoint.pool]}: "
        "scikit-learn's multinomial logistic regression on standardised features, their standardisation folded in, "
        f"with an L2 penalty of strength {strength:.3g}, which was the best in validation:"
    )
    return "\n".join([head, "", "| strength | top-1 |", "|---|---|", *rows])
