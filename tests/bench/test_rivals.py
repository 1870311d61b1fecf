"""The rivals do the same task: the same labels and scores for the same images, as real processes."""

import csv
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from beitcli.bench import processes
from beitcli.bench.clock import FULL
from beitcli.bench.machine import this_machine
from beitcli.bench.processes import finished
from beitcli.bench.versus import Workload, duels

RIVALS = "beitcli.bench.rivals"


def predictions(path: Path) -> list[tuple[str, str, float]]:
    with open(path, newline="") as stream:
        return [(row[0], row[1], float(row[2])) for row in csv.reader(stream)]


@pytest.fixture(scope="module")
def ours(made_model: Path, made_images: list[str]) -> list[tuple[str, str, float]]:
    command = [sys.executable, "-m", "beitcli", "classify", *made_images, "-m", str(made_model), "--dtype", "fp32"]
    process = subprocess.run([*command, "--format", "csv"], capture_output=True, text=True, check=True)
    return [(row["source"], row["label"], float(row["score"])) for row in csv.DictReader(process.stdout.splitlines())]


def assert_same(theirs: list[tuple[str, str, float]], ours: list[tuple[str, str, float]]) -> None:
    assert [row[:2] for row in theirs] == [row[:2] for row in ours]
    assert [row[2] for row in theirs] == pytest.approx([row[2] for row in ours], rel=1e-4)


@pytest.mark.slow
def test_transformers(made_model: Path, listed: Path, ours: list[tuple[str, str, float]], tmp_path: Path) -> None:
    command = [sys.executable, "-m", f"{RIVALS}.transformers_pipeline", made_model, listed, tmp_path / "out.csv"]
    tuned = ("--device", "cpu", "--dtype", "float32", "--batch-size", "2", "--workers", "1")
    _, printed = finished([*map(str, command), *tuned])
    assert printed.endswith(" images/s\n")
    assert_same(predictions(tmp_path / "out.csv"), ours)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
def test_openvino(made_model: Path, listed: Path, ours: list[tuple[str, str, float]], tmp_path: Path) -> None:
    exported = tmp_path / "model.xml"
    export = [sys.executable, "-m", f"{RIVALS}.openvino_export", made_model, exported, "--batch-size", 2]
    finished(list(map(str, export)))
    queue = [sys.executable, "-m", f"{RIVALS}.openvino_queue", made_model, exported, listed, tmp_path / "out.csv"]
    _, printed = finished(list(map(str, queue)))
    assert printed.endswith(" images/s\n")
    assert_same(predictions(tmp_path / "out.csv"), ours)


STAND_IN = """#!/bin/sh
case "$*" in
*openvino_export*) exit ;;
*transformers_pipeline* | *openvino_queue*) program=theirs rate=20 ;;
*) program=ours rate=$(($(grep -c ours "$0.log") % 3 * 20 + 20)) ;;
esac
echo "$program $*" >> "$0.log"
echo "$rate images/s" >&2
"""
"""In place of Python: in turn, `beit batch` reports 20, 40 and 60 images per second; the rival always 20."""


def test_duels_alternate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine = replace(this_machine("cpu", 2), compiles=True)
    python, log = tmp_path / "python", tmp_path / "python.log"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    log.touch()
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(processes, "BEIT", (str(python), *processes.BEIT[1:]))
    monkeypatch.setattr("beitcli.bench.versus.version", lambda _: "1.0")  # neither has to be installed
    names = ["transformers", "openvino", "transformers"]
    results = duels(names, Workload("model", "list", 12, machine), str(tmp_path), FULL)
    assert [line.split()[0] for line in log.read_text().splitlines()] == 16 * ["ours", "theirs"]
    assert [duel.options for duel in results] == ["", "--compile", "--compile", "--dtype int8"]
    assert [duel.setting.partition(":")[0] for duel in results[:2]] == ["defaults", "tuned"]
    for duel in results:
        assert sorted(duel.ours.reported) == [20, 40, 60]
        assert duel.theirs.reported == (20, 20, 20)
        assert duel.ratio == duel.ours.images.per_second / duel.theirs.images.per_second
        assert duel.ratio_reported == 2
