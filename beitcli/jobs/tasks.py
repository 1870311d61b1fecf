"""Tasks: what a run computes for every image, and how a ledger stores it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Generic

from beitcli.ledger.codecs import Codec, ScoresCodec
from beitcli.ledger.feature_store import FeatureCodec
from beitcli.model.checkpoint import Checkpoint
from beitcli.model.features import Encoding
from beitcli.records import Embedding, Identity, Prediction, ResultRecord, Source

if TYPE_CHECKING:
    from beitcli.pipeline import Model, Settings

_KEPT_LABELS = 5
_FEW_LABELS = 10
"""Labels that a ledger keeps of each image at least, and the most of which it keeps all."""


@dataclass(frozen=True, slots=True)
class Task(Generic[ResultRecord]):
    """Classification or features, by one checkpoint.

    `facts` are the settings of this task that a result depends on, and `command` is the one that a ledger belongs to.
    `settings` are the options of the task that are no part of a request.
    `load` loads the model and imports torch; `record` makes the record of one of its results. Both can be pickled.
    """

    command: str
    checkpoint: Checkpoint
    facts: dict[str, str]
    codec: Codec[ResultRecord]
    load: "Callable[[Settings], Model]"
    record: Callable[[Source, Any, Identity, bool], ResultRecord]
    settings: Mapping[str, Any] = field(default_factory=dict)


def classification_task(command: str, checkpoint: Checkpoint, top_k: int) -> Task[Prediction]:
    """Classification into the best `top_k` labels; 0 for all."""
    labels = len(checkpoint.labels)
    columns = min(top_k or labels, labels)
    return _classification_task(command, checkpoint, columns, columns)


def resumable_classification_task(command: str, checkpoint: Checkpoint, top_k: int) -> Task[Prediction]:
    """Classification as `classification_task`, whose ledger keeps more labels, so that other `top_k` cost nothing."""
    labels = len(checkpoint.labels)
    columns = min(top_k or labels, labels)
    kept = labels if labels <= _FEW_LABELS else max(columns, _KEPT_LABELS)
    return _classification_task(command, checkpoint, columns, kept)


def _classification_task(command: str, checkpoint: Checkpoint, columns: int, kept: int) -> Task[Prediction]:
    facts = {"--top-k": str(kept)}
    if checkpoint.activation != "softmax" and not checkpoint.multi_label:
        facts["scores"] = checkpoint.activation  # older versions stored a softmax: predict again
    load = partial(_load_classifier, top_k=kept)
    return Task(command, checkpoint, facts, ScoresCodec(checkpoint.labels, columns), load, Prediction)


def _load_classifier(settings: "Settings", top_k: int) -> "Model":
    from beitcli.pipeline import load_classifier

    return load_classifier(settings, top_k)


def encoding_task(command: str, checkpoint: Checkpoint, kind: Encoding, vectors: FeatureCodec) -> Task[Embedding]:
    """Features of the given kind, stored in `vectors`."""
    facts = {"--pool": kind.pool, "--normalize": str(kind.normalized), "--half": str(kind.half)}
    settings: dict[str, Any] = {"pool": kind.pool, "normalize": kind.normalized, "half": kind.half}
    if kind.layer is not None:  # ledgers of earlier versions have none
        facts["--layer"] = str(kind.layer)
        settings["layer"] = kind.layer
    return Task(command, checkpoint, facts, vectors, partial(_load_encoder, kind=kind), Embedding, settings)


def _load_encoder(settings: "Settings", kind: Encoding) -> "Model":
    from beitcli.pipeline import load_encoder

    return load_encoder(settings, kind)
