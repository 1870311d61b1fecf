"""The rivals do the same task: the same labels and scores for the same images, as real processes."""

import csv
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from beitcli.bench import versus
from beitcli.bench.clock import FULL
from beitcli.bench.machine import this_machine
from beitcli.bench.processes import Run, finished
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


def test_duels_alternate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With fake processes: ours takes 1, 2 and 3 seconds for 12 images, theirs 4."""
    started: list[str] = []

    def run(command: Sequence[str]) -> Run:
        started.append("theirs" if "transformers_pipeline" in command[2] else "ours")
        return Run(float(1 + started.count("ours") % 3), 9.0) if started[-1] == "ours" else Run(4.0, 3.0)

    monkeypatch.setattr(versus, "classified", run)
    workload = Workload("model", "list", 12, replace(this_machine("cpu", 2), compiles=True))
    results = duels(["transformers", "transformers"], workload, str(tmp_path), FULL)
    assert started == 8 * ["ours", "theirs"]
    assert [duel.options for duel in results] == ["", "--compile"]
    assert [duel.setting.partition(":")[0] for duel in results] == ["defaults", "tuned"]
    for duel in results:
        assert duel.ours.images.per_second == 6
        assert duel.theirs.images.timing.seconds == (4.0, 4.0, 4.0)
        assert (duel.ratio, duel.ratio_reported) == (2, 3)
