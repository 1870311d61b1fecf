"""A ledger of an earlier version (made before there were jobs) is continued with everything kept."""

import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from beitcli.jobs.classify import classify_again
from beitcli.jobs.observer import Silent
from beitcli.jobs.requests import Compute, Inputs, ModelChoice, Request, Resume
from beitcli.outputs.writers import Layout

HERE = Path(__file__).parent
SAMPLES = HERE.parents[1] / "samples"
TIMES = (1_767_323_045, 1_767_323_045)
"""Modification time of the images when the ledger was made."""

OF_THE_MACHINE = ("model", "Pillow", "simplejpeg", "heif", "jxl", "raw")
"""Facts of a result that another machine, or another demonstration model, may have otherwise."""


def facts_of(ledger: Path) -> dict[str, str]:
    with closing(sqlite3.connect(ledger)) as database:
        [[facts]] = database.execute("SELECT facts FROM fingerprints")
    return dict(json.loads(facts))


def test_an_earlier_ledger_is_continued_with_everything_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    for sample in SAMPLES.glob("*.jpg"):
        shutil.copy(sample, "images")
    Path("images/half.jpg").write_bytes((SAMPLES / "cat.jpg").read_bytes()[:3000])
    for image in Path("images").iterdir():
        os.utime(image, TIMES)
    model, compute = ModelChoice("demo"), Compute(workers=0, dtype="fp32")

    def run(name: str) -> tuple[int, int, int]:
        target = str(tmp_path / name)
        request = Request(Inputs(["images"]), model=model, compute=compute, resume=Resume(out=name), target=target)
        tally = classify_again(request, lambda columns: Layout("csv", columns), Silent()).tally
        return tally.kept, tally.decoded, tally.failed.total()

    assert run("fresh.csv") == (0, 3, 1)
    now, before = facts_of(tmp_path / "fresh.csv.ledger"), facts_of(HERE / "earlier.ledger")
    assert now.keys() == before.keys()
    shutil.copy(HERE / "earlier.ledger", "out.csv.ledger")
    with closing(sqlite3.connect("out.csv.ledger")) as database, database:
        text = json.dumps(before | {name: now[name] for name in OF_THE_MACHINE}, sort_keys=True)
        database.execute("UPDATE fingerprints SET facts = ?", (text,))
    assert run("out.jsonl") == (3, 0, 1)  # which begins with the results of the other
    assert run("out.csv") == (3, 0, 1)
    assert Path("out.csv").read_bytes() == (HERE / "earlier.csv").read_bytes()
