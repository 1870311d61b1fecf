"""Records as JSON lines."""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, TextIO

from beitcli.records import Failure, Record

_CONTROLS = re.compile("[\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
"""What JSON leaves as it is but steers a terminal, or ends a line for some readers."""


class JsonlWriter:
    """Writes one object a line: source, status, and predictions or an error."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, records: Iterable[Record]) -> None:
        for record in records:
            text = json.dumps(_object(record), ensure_ascii=False, allow_nan=False)
            self._stream.write(_CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n")
        self._stream.flush()


def _object(record: Record) -> dict[str, Any]:
    if isinstance(record, Failure):
        error = {"code": record.code, "message": record.message}
        return {"source": record.source.name, "status": "error", "error": error}
    scores = [asdict(score) for score in record.scores]
    return {"source": record.source.name, "status": "ok", "predictions": scores}
