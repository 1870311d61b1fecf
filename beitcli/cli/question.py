"""What a run asks of its pictures, and how a ledger keeps what it hears."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic

from beitcli.model.checkpoint import Checkpoint
from beitcli.model.features import Encoding
from beitcli.outputs.ledger import Answer, Answered, Answers, Scored
from beitcli.outputs.vectors import Vectors
from beitcli.records import Embedding, Prediction, Score

if TYPE_CHECKING:
    import numpy as np

    from beitcli.pipeline import ClassificationSettings, Settings


@dataclass(frozen=True, slots=True)
class Question(Generic[Answer, Answered]):
    """One command's question to a checkpoint.

    `facts` decide an answer besides the picture and what every run depends on.
    """

    command: str
    checkpoint: Checkpoint
    facts: dict[str, str]
    answers: Answers[Answer, Answered]
    settings: "Callable[[ClassificationSettings], Settings[Answer, Answered]]"


def classifying(command: str, checkpoint: Checkpoint, top_k: int) -> Question[tuple[Score, ...], Prediction]:
    """What is in the pictures: the best `top_k` labels, all for 0."""
    labels = len(checkpoint.labels)
    facts = {"--top-k": str(min(top_k or labels, labels))}
    if checkpoint.activation != "softmax" and not checkpoint.multi_label:
        facts["scores"] = checkpoint.activation  # which were a softmax once: those are given again
    return Question(command, checkpoint, facts, Scored(checkpoint.labels), lambda settings: settings)


def encoding(
    command: str, checkpoint: Checkpoint, kind: Encoding, vectors: Vectors
) -> "Question[np.ndarray[Any, Any], Embedding]":
    """What features the pictures have."""

    def settings(of_a_classifier: "Settings[Any, Any]") -> "Settings[np.ndarray[Any, Any], Embedding]":
        from beitcli import pipeline

        return replace(of_a_classifier, task=pipeline.encoding(kind))

    facts = {"--pool": kind.pool, "--normalize": str(kind.normalized), "--half": str(kind.half)}
    return Question(command, checkpoint, facts, vectors, settings)
