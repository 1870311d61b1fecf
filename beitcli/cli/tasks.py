"""Tasks of the commands, and their codec in the ledger."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic

from beitcli.model.checkpoint import Checkpoint
from beitcli.model.features import Encoding
from beitcli.outputs.ledger import Codec, Result, ResultRecord, ScoresCodec
from beitcli.outputs.vectors import FeatureCodec
from beitcli.records import Embedding, Prediction, Score

if TYPE_CHECKING:
    import numpy as np

    from beitcli.pipeline import ClassificationSettings, Settings


@dataclass(frozen=True, slots=True)
class LedgerTask(Generic[Result, ResultRecord]):
    """Task of one command on a checkpoint, stored in a ledger.

    `facts` are the settings of this task that a result depends on.
    """

    command: str
    checkpoint: Checkpoint
    facts: dict[str, str]
    codec: Codec[Result, ResultRecord]
    settings: "Callable[[ClassificationSettings], Settings[Result, ResultRecord]]"


def classification_task(command: str, checkpoint: Checkpoint, top_k: int) -> LedgerTask[tuple[Score, ...], Prediction]:
    """Classification into the best `top_k` labels; 0 for all."""
    labels = len(checkpoint.labels)
    facts = {"--top-k": str(min(top_k or labels, labels))}
    if checkpoint.activation != "softmax" and not checkpoint.multi_label:
        facts["scores"] = checkpoint.activation  # older versions stored a softmax: predict again
    return LedgerTask(command, checkpoint, facts, ScoresCodec(checkpoint.labels), lambda settings: settings)


def encoding_task(
    command: str, checkpoint: Checkpoint, kind: Encoding, vectors: FeatureCodec
) -> "LedgerTask[np.ndarray[Any, Any], Embedding]":
    """Features of the given kind, stored in `vectors`."""

    def settings(classifier_settings: "Settings[Any, Any]") -> "Settings[np.ndarray[Any, Any], Embedding]":
        from beitcli import pipeline

        return replace(classifier_settings, task=pipeline.encoding(kind))

    facts = {"--pool": kind.pool, "--normalize": str(kind.normalized), "--half": str(kind.half)}
    return LedgerTask(command, checkpoint, facts, vectors, settings)
