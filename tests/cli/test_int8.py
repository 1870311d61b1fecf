"""`--dtype int8`: the check of the first images, a model that int8 spoils, and a ledger's results."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from beitcli.model.catalog import DEMO_FOLDER
from tests.cli.batches import counts, grow, numbered

Beit = Callable[..., "subprocess.CompletedProcess[bytes]"]

INT8 = ("--dtype", "int8")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    grow(tmp_path / "images", numbered(45))
    return tmp_path / "images"


@pytest.fixture
def spoiled(tmp_path: Path) -> Path:
    """The demonstration model, one of whose channels is a thousand times as large between a norm and its linear maps.

    In floating point it computes the same.
    """
    folder = tmp_path / "spoiled"
    shutil.copytree(DEMO_FOLDER, folder)
    weights = load_file(folder / "model.safetensors")
    for name, weight in weights.items():
        if ".layernorm_before." in name or ".layernorm_after." in name:
            weight[7] *= 1000
        elif name.endswith(("query.weight", "key.weight", "value.weight", "intermediate.dense.weight")):
            weight[:, 7] /= 1000
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_the_first_images_are_checked_and_no_check_leaves_that_out(beit: Beit, images: Path) -> None:
    checked = beit("batch", images, "-m", "demo", *INT8)
    [line] = [line for line in checked.stderr.decode().splitlines() if "int8" in line]
    assert line.startswith("beit: int8: same best label on 3 of 3, largest score change 0.0")
    unchecked = beit("batch", images, "-m", "demo", *INT8, "--no-check")
    assert b"int8" not in unchecked.stderr
    assert unchecked.stdout == checked.stdout
    assert checked.stdout.count(b",ok,") == 45


def test_a_model_that_int8_spoils_ends_the_run_before_the_first_record(
    beit: Beit, images: Path, spoiled: Path, tmp_path: Path
) -> None:
    exact, same = (beit("batch", images, "-m", each, "--dtype", "fp32").stdout for each in ("demo", spoiled))
    assert [row.split(b",")[2] for row in exact.splitlines()] == [row.split(b",")[2] for row in same.splitlines()]
    stopped = beit("batch", images, "-m", spoiled, *INT8, "--out", "preds.csv", "-q")
    assert stopped.returncode == 1
    error, hint = stopped.stderr.decode().splitlines()
    assert error.startswith("beit: error: int8 spoils this model: same best label on ")
    assert hint == "hint: use --dtype auto, or --no-check"
    assert not (tmp_path / "preds.csv").exists()
    assert beit("batch", images, "-m", spoiled, *INT8, "--out", "preds.csv", "--no-check").returncode == 0


def test_a_ledger_keeps_int8_apart(beit: Beit, images: Path, tmp_path: Path) -> None:
    run = ("batch", images, "-m", "demo", "--out", "preds.csv")
    assert counts(beit(*run, "--dtype", "fp32").stderr.decode()).decoded == 45
    exact = (tmp_path / "preds.csv").read_bytes()
    assert counts(beit(*run, *INT8).stderr.decode()).kept == 0
    assert (tmp_path / "preds.csv").read_bytes() != exact
    again = beit(*run, *INT8)
    assert counts(again.stderr.decode()).kept == 45
    assert b"int8:" not in again.stderr


def test_features_are_checked(beit: Beit, images: Path) -> None:
    run = beit("embed", images, "-m", "demo", *INT8, "--out", "features.npy")
    assert b"beit: int8: features of 3 images, smallest cosine similarity 0.99" in run.stderr


def test_int8_is_for_results_only(beit: Beit, images: Path) -> None:
    run = beit("train", images, "-m", "demo", *INT8, "--out", "model")
    assert run.returncode == 2
    assert run.stderr.decode().splitlines()[0] == (
        "beit: error: --dtype int8 is for results: networks are not trained in it"
    )


@pytest.mark.slow
def test_one_of_several_workers_checks(beit: Beit, images: Path) -> None:
    alone = beit("batch", images, "-m", "demo", *INT8, "--no-check")
    run = beit("batch", images, "-m", "demo", *INT8, "--devices", "cpu,cpu")
    assert run.stderr.count(b"int8: same best label") == 1
    assert run.stdout == alone.stdout
