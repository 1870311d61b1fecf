"""The card of a linear probe."""

from collections.abc import Sequence
from dataclasses import dataclass

from beitcli.model.checkpoint import Checkpoint
from beitcli.training.model_card import AS_EVALUATED, SEEN, UNSEEN, Facts
from beitcli.training.probe.checkpoint import PooledCheckpoint
from beitcli.training.probe.fit import Probe
from beitcli.training.probe.regression import STRENGTHS
from beitcli.training.validation import ModelPredictions, validated_images

_STATES = {"mean": "the mean of its final patch states", "cls": "its first final state"}
_STATES_BEHIND = {"mean": "the mean of its patch states", "cls": "its first state"}


@dataclass(frozen=True, slots=True)
class Circumstances:
    """Command, seed and duration of a probe, and the dtype of its features."""

    command: str
    seed: int
    seconds: float
    dtype: str


def probe_facts(
    probe: Probe,
    base: Checkpoint,
    checkpoint: PooledCheckpoint,
    classes: Sequence[str],
    predictions: ModelPredictions | None,
    circumstances: Circumstances,
) -> Facts:
    """Content of the card; `predictions` are the saved model's of the images that it has not learnt from, if any.

    `checkpoint` is the part of `base` whose features the probe has.
    """
    held_out, measured = _held_out(probe, len(classes)), _measured(probe, circumstances.dtype)
    if predictions:
        measured = AS_EVALUATED.format(predictions.computed)
    return Facts(
        command=circumstances.command,
        description=_description(probe, base, checkpoint),
        classes=classes,
        trained_on=len(probe.digests),
        validated=validated_images(probe.held_out, predictions, classes) if predictions else probe.validated,
        held_out=held_out,
        measured=measured,
        ambiguous=probe.identical.ambiguous,
        seed=circumstances.seed,
        seconds=circumstances.seconds,
        refitted=not predictions and probe.folds == 1,
    )


def _held_out(probe: Probe, classes: int) -> str:
    without = f", without any of {probe.unvalidated} of the {classes} classes" if probe.unvalidated else ""
    overlap = probe.identical.overlap
    if probe.held_out:
        return (SEEN.format(overlap) if overlap else UNSEEN) + without
    known = f", {overlap} of them training images, too" if overlap else ""
    how = "five-fold cross-validation" if probe.folds > 1 else "by a layer trained on the others"
    return f"that were held out ({how}{known}{without}; the final model is trained on all)"


def _measured(probe: Probe, dtype: str) -> str:
    others = "the other folds" if probe.folds > 1 else "the other images"
    return f"Each of these was predicted by a layer that was fitted to {others}, on features in {dtype}."


def _description(probe: Probe, base: Checkpoint, checkpoint: PooledCheckpoint) -> str:
    """Description of the training, with the accuracy at each strength, and of each layer that was tried."""
    accuracies = zip(STRENGTHS, probe.accuracies, strict=True)
    rows = [f"| {each:.3g} | {100 * accuracy:.2f} % |" for each, accuracy in accuracies]
    head = (
        f"A linear probe: `{checkpoint.name}`, frozen, with a new linear layer on {_states(base, checkpoint)}: "
        "scikit-learn's multinomial logistic regression on standardised features, their standardisation folded in, "
        f"with an L2 penalty of strength {probe.strength:.3g}, which was the best in validation:"
    )
    table = [head, "", "| strength | top-1 |", "|---|---|", *rows]
    if len(probe.by_layer) > 1:
        tried = (f"| {number} | {100 * accuracy:.2f} % |" for number, accuracy in enumerate(probe.by_layer, start=1))
        table += ["", "Validation chose the layer, too:", "", "| layer | top-1 |", "|---|---|", *tried]
    return "\n".join(table)


def _states(base: Checkpoint, checkpoint: PooledCheckpoint) -> str:
    layers = base.config.get("num_hidden_layers", 12)
    if checkpoint.layers == layers:
        return _STATES[checkpoint.pool]
    return f"{_STATES_BEHIND[checkpoint.pool]} behind layer {checkpoint.layers} of {layers}, which are all that is kept"
