"""Records as JSON lines."""

import json
import re
from collections.abc import Iterable
from typing import TextIO

from beitcli.records import Failure, Prediction, Record, Score, Source

_CONTROLS = re.compile("[\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
"""Characters that JSON does not escape but that steer a terminal, or end a line for some readers."""

_SCORE_KEYS = {"label", "index", "score"}
_LARGEST_INDEX = 2**31 - 1  # of a column of Parquet
_LARGEST_SCORE = (2 - 2**-23) * 2.0**127  # of float32


class JsonlWriter:
    """Writes one object a line: source, status, and predictions or an error."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, records: Iterable[Record]) -> None:
        for record in records:
            text = json.dumps(record.as_dict(), ensure_ascii=False, allow_nan=False)
            self._stream.write(_CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n")
        self._stream.flush()


def record_of(value: object) -> Record:
    """Inverse of `as_dict`. Raises ValueError that names the fault."""
    match value:
        case {"source": str(name), "status": "ok", "predictions": list(scores), **more} if not more:
            return Prediction(Source.named(name), tuple(_score(score) for score in scores))
        case {"source": str(name), "status": "error", "error": dict(error), **more} if not more:
            return _failure(Source.named(name), error)
    raise ValueError("neither a prediction nor an error")


def _failure(source: Source, error: object) -> Failure:
    match error:
        case {"code": str(code), "message": str(message), **more} if code and not more:
            return Failure(source, code, message)
    raise ValueError("an error that is not a code and a message")


def _score(value: object) -> Score:
    if not isinstance(value, dict) or value.keys() != _SCORE_KEYS or not isinstance(value["label"], str):
        raise ValueError("a prediction that is not a label, an index and a score")
    label, index, score = value["label"], value["index"], value["score"]
    if type(index) is not int or not 0 <= index <= _LARGEST_INDEX:
        raise ValueError(f"`{index}` is no index")
    if type(score) not in (float, int) or not -_LARGEST_SCORE <= score <= _LARGEST_SCORE:
        raise ValueError(f"`{score}` is no score")
    return Score(label, index, float(score))
