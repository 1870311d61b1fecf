"""Folders of files as the tests of sorting make and compare them, and results that name them."""

import json
import os
import random
from pathlib import Path
from typing import Any

from beitcli.jobs.observer import Silent
from beitcli.jobs.result_files import ResultFiles
from beitcli.jobs.sorting import Sorted, SortRequest, Undone, sort, undo

Tree = dict[str, bytes | str]
"""The bytes of each file by its path, and the text of each link."""


def tree(folder: Path) -> Tree:
    """The files and links below a folder, without the journal."""
    found: Tree = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = os.readlink(path)
        elif path.is_file() and not path.name.startswith("beit-sort.jsonl"):
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def fill(folder: Path, *names: str, size: int = 100) -> None:
    """Files of random bytes, each of its own."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.Random(name).randbytes(size))


def ok(source: object, label: str | None, score: float = 0.9) -> str:
    scores = [] if label is None else [{"label": label, "index": 0, "score": score}]
    return json.dumps({"source": str(source), "status": "ok", "predictions": scores})


def failed(source: object, code: str = "truncated") -> str:
    return json.dumps({"source": str(source), "status": "error", "error": {"code": code, "message": "no"}})


def results(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def sorted_into(
    to: Path, *files: Path, corrections: str | None = None, threshold: float | None = None, **options: Any
) -> Sorted:
    """A sorting in this process."""
    request = SortRequest(ResultFiles(tuple(map(str, files)), corrections, threshold), str(to), **options)
    return sort(request, Silent(), lambda plan: None)


def undone(folder: Path) -> Undone:
    return undo(str(folder), Silent())
