"""Codecs of stored results: record <-> text."""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any, Protocol

from beitcli.ledger.database import parsed
from beitcli.records import Identity, Prediction, ResultRecord, Score, Source


class Codec(Protocol[ResultRecord]):
    """Codec of one kind of result: record <-> text. Decoding raises sqlite3.DatabaseError for invalid text.

    `adopt` makes results of another ledger available here; without `copies` only for this run's `is_available`.
    `layout` is JSON from which a codec of the same results can be made.
    """

    def is_available(self, text: str) -> bool: ...
    def encode(self, record: ResultRecord) -> str: ...
    def decode(self, text: str) -> Any: ...
    def to_record(self, source: Source, identity: Identity, text: str) -> ResultRecord: ...
    def adopt(self, ledger: str, copies: bool) -> None: ...
    def layout(self) -> dict[str, Any]: ...


class ScoresCodec:
    """Codec of predictions: JSON `[[index, score], …]`, of which a record has the best `top_k`."""

    def __init__(self, labels: Sequence[str], top_k: int) -> None:
        self._labels = labels
        self._top_k = top_k

    def is_available(self, text: str) -> bool:
        return text.count("[") > self._top_k

    def encode(self, record: Prediction) -> str:
        return json.dumps([(score.index, score.score) for score in record.scores])

    def decode(self, text: str) -> tuple[Score, ...]:
        try:
            return tuple(Score(self._labels[index], index, score) for index, score in parsed(text))
        except (TypeError, ValueError, IndexError) as error:
            raise sqlite3.DatabaseError(f"invalid scores: {text}") from error

    def to_record(self, source: Source, identity: Identity, text: str) -> Prediction:
        return Prediction(source, self.decode(text)[: self._top_k], identity)

    def adopt(self, ledger: str, copies: bool) -> None:
        """Do nothing: a prediction needs no other file."""

    def layout(self) -> dict[str, Any]:
        """The labels."""
        return {"labels": list(self._labels)}
