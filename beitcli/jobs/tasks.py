"""Tasks: what a run computes for every image, and how a ledger stores it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic

from beitcli.ledger.feature_store import FeatureCodec
from beitcli.ledger.ledger import Codec, Result, ResultRecord, ScoresCodec
from beitcli.model.checkpoint import Checkpoint
from beitcli.model.features import Encoding
from beitcli.records import Embedding, Prediction, Score

if TYPE_CHECKING:
    import numpy as np

    from beitcli import pipeline


@dataclass(frozen=True, slots=True)
class Task(Generic[Result, ResultRecord]):
    """Classification or features, by one checkpoint.

    `facts` are the settings of this task that a result depends on, and `command` is the one that a ledger belongs to.
    `prediction` gives what the pipeline loads; it imports torch.
    """

    command: str
    checkpoint: Checkpoint
    facts: dict[str, str]
    codec: Codec[Result, ResultRecord]
    prediction: "Callable[[], pipeline.Task[Result, ResultRecord]]"


def classification_task(command: str, checkpoint: Checkpoint, top_k: int) -> Task[tuple[Score, ...], Prediction]:
    """Classification into the best `top_k` labels; 0 for all."""

    def prediction() -> "pipeline.Task[tuple[Score, ...], Prediction]":
        from beitcli import pipeline

        return pipeline.classification(top_k)

    labels = len(checkpoint.labels)
    facts = {"--top-k": str(min(top_k or labels, labels))}
    if checkpoint.activation != "softmax" and not checkpoint.multi_label:
        facts["scores"] = checkpoint.activation  # older versions stored a softmax: predict again
    return Task(command, checkpoint, facts, ScoresCodec(checkpoint.labels), prediction)


def encoding_task(
    command: str, checkpoint: Checkpoint, kind: Encoding, vectors: FeatureCodec
) -> "Task[np.ndarray[Any, Any], Embedding]":
    """Features of the given kind, stored in `vectors`."""

    def prediction() -> "pipeline.Task[np.ndarray[Any, Any], Embedding]":
        from beitcli import pipeline

        return pipeline.encoding(kind)

    facts = {"--pool": kind.pool, "--normalize": str(kind.normalized), "--half": str(kind.half)}
    return Task(command, checkpoint, facts, vectors, prediction)
