"""`beit embed` as a real process: formats, features, and resumed runs."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from beitcli.model.catalog import DEMO_FOLDER
from tests import preloaded
from tests.cli.batches import DEMO, batch, clean_environment, counts, grow, numbered
from tests.conftest import SAMPLES

TOTAL = 120


def embed(folder: Path, *arguments: object, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run `beit embed` with the demo model in fp32 to its end."""
    process = preloaded.beit(["embed", *DEMO, *map(str, arguments)], folder, **options)
    stdout, stderr = process.stdout.decode(), process.stderr.decode()
    assert "Traceback" not in stderr
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def index(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three photographs, and a broken one between them."""
    shutil.copytree(SAMPLES, tmp_path / "in")
    (tmp_path / "in" / "bro,ken.jpg").write_bytes((SAMPLES / "cat.jpg").read_bytes()[:5000])
    return tmp_path


NAMES = ["in/boats.jpg", "in/bro,ken.jpg", "in/cat.jpg", "in/coffee.jpg"]
GOOD = [name for name in NAMES if "bro" not in name]


def reference(pool: str, folder: str | Path = DEMO_FOLDER) -> "np.ndarray[Any, Any]":
    """Features of the readable photographs by transformers."""
    import torch
    from transformers import BeitModel
    from transformers.models.beit.image_processing_pil_beit import BeitImageProcessorPil

    model = BeitModel.from_pretrained(folder, dtype=torch.float32).eval()
    processor = BeitImageProcessorPil.from_pretrained(folder)
    images = [Image.open(SAMPLES / os.path.basename(name)).convert("RGB") for name in GOOD]
    with torch.no_grad():
        states = model(**processor(images, return_tensors="pt"))
    last = states.last_hidden_state
    features: np.ndarray[Any, Any] = {"mean": states.pooler_output, "cls": last[:, 0], "patches": last[:, 1:]}[
        pool
    ].numpy()
    return features


@pytest.mark.parametrize(("pool", "tolerance"), [("mean", 1e-4), ("cls", 1e-4), ("patches", 1e-3)])
def test_an_array_has_the_features_of_transformers_and_an_index_of_its_rows(
    folder: Path, pool: str, tolerance: float
) -> None:
    process = embed(folder, "in", "--pool", pool, "-o", "out.npy")
    assert process.returncode == 3
    assert counts(process.stderr) == (4, 0, 3, 0, 1)
    features, expected = np.load(folder / "out.npy"), reference(pool)
    assert features.dtype == (np.float16 if pool == "patches" else np.float32)
    assert features.shape == expected.shape
    assert np.abs(features - expected).max() < tolerance * np.abs(expected).max()
    rows = index(folder / "out.npy.index.csv")
    assert [(row["source"], row["row"]) for row in rows] == list(zip(NAMES, ["0", "", "1", "2"], strict=True))
    assert [row["error_code"] for row in rows] == ["", "truncated", "", ""]
    assert sorted(os.listdir(folder)) == [
        "in",
        *(f"out.npy{suffix}" for suffix in ("", ".index.csv", ".ledger", ".ledger-features")),
    ]


def masked_image_model(folder: Path, tiny_beit: Path) -> Path:
    """A model after pre-training: an encoder without a pooler, then a layer norm and a head for visual tokens."""
    import torch
    from transformers import BeitConfig, BeitForMaskedImageModeling

    torch.manual_seed(11)
    config = BeitConfig.from_dict(json.loads((tiny_beit / "config.json").read_text()) | {"vocab_size": 20})
    network = BeitForMaskedImageModeling(config)
    for parameter in network.parameters():
        parameter.data = torch.randn_like(parameter) * 0.3
    network.save_pretrained(folder)
    shutil.copy(tiny_beit / "preprocessor_config.json", folder)
    return folder


@pytest.mark.parametrize("pool", ["mean", "cls", "patches"])
def test_a_model_that_is_no_classifier_has_features_too(folder: Path, tiny_beit: Path, pool: str) -> None:
    model = masked_image_model(folder / "mim", tiny_beit)
    process = embed(folder, "in", "-m", model, "--pool", pool, "-o", "out.npy")
    assert process.returncode == 3, process.stderr
    expected = reference(pool, model)
    assert (
        np.abs(np.load(folder / "out.npy") - expected).max()
        < (1e-3 if pool == "patches" else 1e-4) * np.abs(expected).max()
    )


def test_features_beyond_float16_are_clipped(folder: Path, tiny_beit: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny_beit, folder / "large")
    weights = load_file(tiny_beit / "model.safetensors")
    weights["beit.pooler.layernorm.weight"][3] = 1e6
    save_file(weights, folder / "large" / "model.safetensors", metadata={"format": "pt"})
    plain, half = (
        embed(folder, "in", "-m", "./large", *options, "-o", f"{len(options)}.npy") for options in ((), ("--half",))
    )
    assert (plain.returncode, half.returncode) == (3, 3)
    assert half.stderr.count("beyond ±65504") == 1
    exact = np.load(folder / "0.npy")
    assert np.array_equal(np.load(folder / "1.npy"), exact.clip(-65504, 65504).astype(np.float16))
    assert (np.abs(exact[:, 3]) > 65504).any()


def test_other_formats_hold_the_same(folder: Path) -> None:
    from pyarrow import parquet

    for name in ("out.npy", "out.npz", "out.parquet"):
        assert embed(folder, "in", "-o", name, "--no-ledger").returncode == 3
    features = np.load(folder / "out.npy")
    with np.load(folder / "out.npz") as archive:
        assert np.array_equal(archive["features"], features)
        assert archive["sources"].tolist() == GOOD
        assert archive["failed_sources"].tolist() == ["in/bro,ken.jpg"]
        assert archive["failed_codes"].tolist() == ["truncated"]
    table = parquet.read_table(folder / "out.parquet")
    assert table["source"].to_pylist() == NAMES
    assert table["status"].to_pylist() == ["ok", "error", "ok", "ok"]
    assert table["error_code"].to_pylist() == [None, "truncated", None, None]
    assert table["features"].null_count == 1
    assert np.array_equal(np.array(table["features"].drop_null().to_pylist(), np.float32), features)
    assert json.loads(table.schema.metadata[b"shape"]) == [256]
    assert sorted(os.listdir(folder)) == ["in", "out.npy", "out.npy.index.csv", "out.npz", "out.parquet"]


def test_normalized_and_half(folder: Path) -> None:
    embed(folder, "in", "-o", "plain.npy")
    embed(folder, "in", "-o", "unit.npy", "--normalize")
    embed(folder, "in", "-o", "half.parquet", "--half")
    plain, unit = np.load(folder / "plain.npy"), np.load(folder / "unit.npy")
    assert np.allclose(unit, plain / np.linalg.norm(plain, axis=1, keepdims=True), atol=1e-6)
    from pyarrow import parquet

    half = parquet.read_table(folder / "half.parquet")["features"].drop_null()
    assert half.type.value_type == "halffloat"
    assert np.array_equal(np.array(half.to_pylist(), np.float16), plain.astype(np.float16))


@pytest.mark.parametrize("name", ["out.npy", "out.npz", "out.parquet"])
def test_without_any_image_the_file_is_valid_and_empty(folder: Path, name: str) -> None:
    assert embed(folder, "--files-from", os.devnull, "-o", name).returncode == 0
    if name == "out.parquet":
        from pyarrow import parquet

        assert parquet.read_table(folder / name).num_rows == 0
    else:
        loaded = np.load(folder / name)
        assert (loaded if name == "out.npy" else loaded["features"]).shape == (0, 256)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["in"], 2, "features need a file"),
        (["in", "-o", "-"], 2, "features need a file"),
        (["x.npy", "-o", "x.npy"], 2, "`x.npy` is an input, and would be overwritten"),
        (["in", "-o", "x.csv"], 2, "features have no format `.csv`"),
        (["in", "-o", "x.npy", "--pool", "max"], 2, "--pool"),
        (["in", "-o", "no/x.npy"], 1, "does not exist"),
        (["-o", "x.npy"], 2, "nothing to"),
    ],
)
def test_impossible_requests_fail_at_once(folder: Path, arguments: list[str], status: int, words: str) -> None:
    process = embed(folder, *arguments, light=True)
    assert process.returncode == status
    assert words in process.stderr
    assert os.listdir(folder) == ["in"]


def test_a_second_run_processes_changed_images(folder: Path) -> None:
    embed(folder, "in", "-o", "out.npy")
    before = np.load(folder / "out.npy")
    assert counts(embed(folder, "in", "-o", "out.npy").stderr) == (4, 3, 0, 0, 1)
    shutil.copy(folder / "in" / "cat.jpg", folder / "in" / "again.jpg")
    os.unlink(folder / "in" / "boats.jpg")
    assert counts(embed(folder, "in", "-o", "out.npy").stderr) == (4, 2, 0, 1, 1)
    after = np.load(folder / "out.npy")
    assert [row["source"] for row in index(folder / "out.npy.index.csv")] == [
        "in/again.jpg",
        "in/bro,ken.jpg",
        "in/cat.jpg",
        "in/coffee.jpg",
    ]
    assert np.array_equal(after, before[[1, 1, 2]])
    assert counts(embed(folder, "in", "-o", "out.npy", "--half").stderr)[1:3] == (
        0,
        2,
    )  # other settings, other features


def test_with_nothing_to_do_nothing_heavy_is_imported(folder: Path) -> None:
    embed(folder, "in", "-o", "out.npy")
    status = (folder / "out.npy").stat()
    assert embed(folder, "in", "-o", "out.npy", light=True, refused=("torch", "transformers")).returncode == 3
    assert (folder / "out.npy").stat() == status


def test_damaged_features_are_detected(folder: Path) -> None:
    embed(folder, "in", "-o", "out.npy")
    with (folder / "out.npy.ledger-features").open("r+b") as stream:
        stream.write(b"\0" * 8)
    os.unlink(folder / "out.npy")
    process = embed(folder, "in", "-o", "out.npy")
    assert process.returncode == 1
    assert "is not what it was" in process.stderr
    assert "--fresh" in process.stderr
    assert not (folder / "out.npy").exists()
    assert embed(folder, "in", "-o", "out.npy", "--fresh").returncode == 3
    assert np.load(folder / "out.npy").shape == (3, 256)
    assert not list(folder.glob("*.old*-features"))  # as large as the output, and reproducible


@pytest.mark.parametrize("left", [2000, *(pytest.param(left, marks=pytest.mark.slow) for left in (0, None))])
def test_lost_features_are_computed_again(folder: Path, left: int | None) -> None:
    embed(folder, "in", "-o", "out.npy")
    before = (folder / "out.npy").read_bytes()
    os.unlink(folder / "out.npy")
    features = folder / "out.npy.ledger-features"
    if left is None:
        features.unlink()
    else:
        os.truncate(features, left)
    found = embed(folder, "in", "-o", "out.npy", "--dry-run").stdout.split()
    assert found[found.index("changed") - 1] == str(3 - (left or 0) // 1024)
    assert counts(embed(folder, "in", "-o", "out.npy").stderr)[2] == 3 - (left or 0) // 1024
    assert (folder / "out.npy").read_bytes() == before


def test_any_name_is_read_back_from_the_index(folder: Path) -> None:
    name = 'in/a "b",\r c\n.png'
    Image.new("RGB", (8, 8)).save(folder / name)
    assert embed(folder, name, "-o", "out.npy").returncode == 0
    assert [row["source"] for row in index(folder / "out.npy.index.csv")] == [name]


def test_the_ledger_of_another_command_is_left_alone(folder: Path) -> None:
    assert batch(folder, "in", *DEMO, "-o", "out.parquet").returncode == 3
    before = (folder / "out.parquet").read_bytes()
    process = embed(folder, "in", "-o", "out.parquet")
    assert (process.returncode, "is not a ledger of `beit embed`" in process.stderr) == (1, True)
    assert (folder / "out.parquet").read_bytes() == before
    assert embed(folder, "in", "-o", "out.parquet", "--fresh").returncode == 3


def test_the_index_is_checked_before_anything_is_done(folder: Path) -> None:
    (folder / "out.npy.index.csv").mkdir()
    process = embed(folder, "in", "-o", "out.npy")
    assert (process.returncode, "out.npy.index.csv` names no file" in process.stderr) == (1, True)
    assert sorted(os.listdir(folder)) == ["in", "out.npy.index.csv"]


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_the_file_of_an_undisturbed_run(tmp_path: Path) -> None:
    name = "out.npy"
    grow(tmp_path / "in", numbered(TOTAL))
    (tmp_path / "in" / "050.png").write_bytes(b"no image")
    same = ("in", "-b", "4", "-j", "1", "-o")
    assert embed(tmp_path, *same, f"whole{Path(name).suffix}").returncode == 3
    kept = 0
    command = [sys.executable, "-m", "beitcli", "embed", *DEMO, *same, name]
    for _ in range(4):
        process = subprocess.Popen(command, cwd=tmp_path, env=clean_environment(), stderr=subprocess.PIPE)
        until = time.monotonic() + 60
        features = tmp_path / f"{name}.ledger-features"
        while process.poll() is None and time.monotonic() < until:
            if features.exists() and features.stat().st_size > kept + 5_000:
                break
            time.sleep(0.002)
        time.sleep(random.uniform(0, 0.02))
        process.send_signal(random.choice([signal.SIGKILL, signal.SIGTERM]))
        process.communicate()
        kept = features.stat().st_size
    images, before, _, _, failed = counts(embed(tmp_path, *same, name).stderr)
    assert (images, failed) == (TOTAL, 1)
    assert before > 0
    assert (tmp_path / name).read_bytes() == (tmp_path / f"whole{Path(name).suffix}").read_bytes()
