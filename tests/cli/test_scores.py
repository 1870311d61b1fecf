"""Scores of regressions and single labels in every command."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from beitcli.jobs.tasks import classification_task
from beitcli.model.catalog import DEMO_FOLDER
from beitcli.model.checkpoint import open_checkpoint
from tests.cli.batches import counts
from tests.conftest import SAMPLES

Beit = Callable[..., "subprocess.CompletedProcess[bytes]"]
FIELD = Path(__file__).parent.parent / "field"


@pytest.fixture
def regression(tiny_beit: Path, tmp_path: Path) -> Path:
    """A regression of five quantities, some of them below 0 and beyond 1."""
    folder = tmp_path / "regression"
    shutil.copytree(tiny_beit, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"problem_type": "regression"}))
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.weight"] *= 20
    save_file(tensors, folder / "model.safetensors")
    return folder


def predictions(jsonl: bytes) -> list[Any]:
    return [json.loads(line)["predictions"] for line in jsonl.splitlines()]


@pytest.mark.slow
def test_raw_scores_travel_through_every_format(beit: Beit, regression: Path, tmp_path: Path) -> None:
    model = ("-m", regression, "--dtype", "fp32")
    outputs = ["a.jsonl", "a.csv", "a.tsv", "a.parquet"]
    for out in outputs:
        process = beit("batch", SAMPLES, *model, "--out", out)
        assert process.returncode == 0, process.stderr
        assert counts(beit("batch", SAMPLES, *model, "--out", out).stderr.decode())[:3] == (3, 3, 0)
    rows = predictions((tmp_path / "a.jsonl").read_bytes())
    scores = [each["score"] for row in rows for each in row]
    assert len(scores) == 15
    assert min(scores) < -1
    assert max(scores) > 2
    assert all(row == sorted(row, key=lambda each: -each["score"]) for row in rows)
    assert str(min(scores)) in (tmp_path / "a.csv").read_text()
    for out in outputs:  # a merge reads it and writes it unchanged
        process = beit("merge", "merged.jsonl", out, "a.jsonl")
        assert process.returncode == 0, process.stderr
        assert predictions((tmp_path / "merged.jsonl").read_bytes()) == rows


@pytest.mark.parametrize("threshold", [-1.0, 0.0, 1.5])
def test_a_threshold_may_be_any_score_of_a_regression(
    threshold: float, beit: Beit, regression: Path, tmp_path: Path
) -> None:
    rows = predictions(beit("classify", SAMPLES, "-m", regression, "-f", "jsonl").stdout)
    process = beit("classify", SAMPLES, "-m", regression, "-f", "jsonl", "--threshold", threshold)
    kept = [[each for each in row if each["score"] >= threshold] for row in rows]
    assert predictions(process.stdout) == kept != rows


@pytest.mark.parametrize("threshold", ["-0.1", "1.5"])
def test_a_threshold_that_no_probability_has(threshold: str, beit: Beit) -> None:
    process = beit("classify", SAMPLES, "-m", "demo", "--threshold", threshold)
    assert (process.returncode, process.stdout) == (2, b"")
    assert f"--threshold {threshold}: the scores of `demo` are from 0 to 1".encode() in process.stderr


@pytest.fixture
def one_label(tmp_path: Path) -> Path:
    folder = tmp_path / "one-label"
    shutil.copytree(DEMO_FOLDER, folder)
    shutil.copy(FIELD / "one-label-config.json", folder / "config.json")
    tensors = load_file(folder / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        tensors[name] = tensors[name][3:4].contiguous()
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_one_label_has_the_score_of_a_sigmoid(beit: Beit, one_label: Path) -> None:
    process = beit("classify", SAMPLES, "-m", one_label, "-f", "jsonl", "--dtype", "fp32")
    assert process.returncode == 0, process.stderr
    scores = [each["score"] for row in predictions(process.stdout) for each in row]
    assert len(set(scores)) == len(scores) == 3
    assert all(0 < score < 1 for score in scores)


KINDS = {
    "one label": ({"id2label": {"0": "cat"}, "label2id": None}, "has one label"),
    "regression": ({"problem_type": "regression"}, "is a regression"),
    "regression of one": ({"problem_type": "regression", "id2label": {"0": "cat"}}, "is a regression"),
    "several labels": ({"problem_type": "multi_label_classification"}, "gives each image several labels at once"),
}


@pytest.mark.parametrize(("changes", "message"), KINDS.values(), ids=KINDS)
def test_models_without_a_best_label_are_not_evaluated(
    changes: dict[str, Any], message: str, beit: Beit, tmp_path: Path
) -> None:
    (tmp_path / "val" / "cat").mkdir(parents=True)
    shutil.copy(SAMPLES / "cat.jpg", tmp_path / "val" / "cat")
    shutil.copytree(DEMO_FOLDER, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | changes))
    process = beit("eval", "val", "-m", "model", "--json", "eval.json")
    assert (process.returncode, process.stdout) == (2, b"")
    error, hint = process.stderr.decode().splitlines()
    assert error.startswith(f"beit: error: `model` {message}")
    assert hint.startswith("hint: `beit batch`")
    assert not (tmp_path / "eval.json").exists()


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        ({}, None),
        ({"problem_type": "multi_label_classification"}, None),
        ({"problem_type": "regression"}, "none"),
        ({"id2label": {"0": "cat"}}, "sigmoid"),
    ],
    ids=str,
)
def test_only_scores_with_a_changed_definition_are_predicted_again(
    changes: dict[str, Any], fact: str | None, tmp_path: Path
) -> None:
    shutil.copytree(DEMO_FOLDER, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | changes))
    checkpoint = open_checkpoint(str(tmp_path / "model"), None)
    assert classification_task("batch", checkpoint, 5).facts.get("scores") == fact
