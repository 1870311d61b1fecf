"""The JSON of an evaluation -> the images that it names, and its figures."""

import json
from typing import Any

from beitcli.errors import BeitError
from beitcli.outputs.jsonl import record_of
from beitcli.records import Record, printable


def read_evaluation(path: str) -> tuple[list[tuple[Record, str | None]], dict[str, Any], str]:
    """The mistakes and failures that the JSON of `beit eval` lists, with their true labels, its figures, and its model.

    Raises BeitError for another file.
    """
    try:
        with open(path, "rb") as stream:
            report = json.load(stream)
        figures, failures = report["figures"], report["failures"]
        labels = {each["index"]: each["label"] for each in figures["classes"]}
        records: list[tuple[Record, str | None]] = [
            (_prediction(each, labels), labels[each["true"]]) for each in figures["mistakes"]
        ]
        records += [(_failure(code, each), None) for code, several in failures.items() for each in several]
        for name in ("top1", "top5", "macro", "ece", "bins", "confusion", "images"):
            _ = figures[name]
        return records, figures, str(report["setting"]["model"])
    except OSError as error:
        raise BeitError(f"cannot read `{printable(path)}`: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BeitError(
            f"`{printable(path)}` is no JSON of `beit eval`", "name files of `beit batch`, or that of its JSON"
        ) from error


def _prediction(mistake: dict[str, Any], labels: dict[int, str]) -> Record:
    best = {"label": labels[mistake["predicted"]], "index": mistake["predicted"], "score": mistake["score"]}
    return record_of({"source": mistake["source"], "status": "ok", "predictions": [best]})


def _failure(code: str, failure: dict[str, Any]) -> Record:
    return record_of(
        {"source": failure["source"], "status": "error", "error": {"code": code, "message": failure["message"]}}
    )
