"""`--devices`: the bytes of a local run, without Ray."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.batches import batch, counts, grow, numbered
from tests.preloaded import beit
from tests.workers.conftest import SAME, TWO


@pytest.mark.slow
def test_several_devices_write_the_bytes_of_one(folder: Path, local: bytes) -> None:
    process = batch(folder, *SAME, *TWO, "--out", "out.csv")
    assert process.returncode == 3
    assert (folder / "out.csv").read_bytes() == local
    assert counts(process.stderr).images == 501
    again = batch(folder, *SAME, *TWO, "--out", "out.csv", "--dry-run")
    assert again.stdout.splitlines()[-1] == "2 workers"


@pytest.mark.slow
def test_every_output_is_that_of_one_device(folder: Path, tiny_beit: Path) -> None:
    grow(folder / "val" / "ant", numbered(20))
    grow(folder / "val" / "bee", numbered(20), seed=2)
    for arguments in (
        ["batch", "images", "--out", "out.jsonl"],
        ["batch", "images", "--out", "out.parquet"],
        ["embed", "images", "--out", "out.npz"],
        ["eval", "val", "--json", "out.json"],
        ["classify", "images"],
    ):
        written = []
        for devices in ((), TWO):
            process = beit([*arguments, "-m", str(tiny_beit), "-b", "4", *devices], folder)
            assert process.returncode == (0 if "val" in arguments else 3)
            written.append({path.name: path.read_bytes() for path in folder.glob("out*") if "ledger" not in path.name})
            written[-1]["stdout"] = process.stdout
            for path in folder.glob("out*"):
                path.unlink()
        assert written[0] == written[1]


@pytest.mark.slow
def test_a_long_path_of_temporary_files_is_no_obstacle(tmp_path: Path) -> None:
    grow(tmp_path / "images", numbered(5))
    long = tmp_path / ("t" * 110)
    long.mkdir()
    process = batch(tmp_path, *SAME, *TWO, "--out", "out.csv", env={**os.environ, "TMPDIR": str(long)})
    assert counts(process.stderr) == (5, 0, 5, 0, 0)


@pytest.mark.slow
def test_an_image_that_the_ledger_knows_skips_the_model(folder: Path, local: bytes) -> None:
    images = folder / "own"
    grow(images, numbered(20))
    again = ("own", "-m", "demo", "--dtype", "fp32", *TWO, "--out", "out.csv")
    assert counts(batch(folder, *again).stderr) == (20, 0, 20, 0, 0)
    for number in range(20, 26):
        (images / f"{number:03}.png").write_bytes((images / f"{number - 20:03}.png").read_bytes())
    assert counts(batch(folder, *again).stderr) == (26, 20, 0, 6, 0)


@pytest.mark.slow
def test_a_probe_of_features_by_workers_is_the_probe(folder: Path, tiny_beit: Path) -> None:
    grow(folder / "val" / "ant", numbered(20))
    grow(folder / "val" / "bee", numbered(20), seed=2)
    weights = []
    for number, devices in enumerate([(), TWO]):
        process = beit(["train", "val", "-m", str(tiny_beit), "--out", f"model-{number}", *devices], folder)
        assert process.returncode == 0, process.stderr
        weights.append((folder / f"model-{number}" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    refused = beit(["train", "val", "--from-scratch", "tiny", "--out", "new", *TWO], folder)
    assert refused.returncode == 2
    assert b"a training of all layers runs on one device" in refused.stderr


def test_what_contradicts_itself_is_refused(folder: Path) -> None:
    for options, message in (
        (("--devices", "cpu,abacus"), "--devices cpu,abacus: no such devices"),
        (("--devices", "all", "--engine", "ray"), "--devices all and --engine ray"),
        (("--address", "127.0.0.1:1"), "--address 127.0.0.1:1 is for Ray"),
        (("--strict",), "--strict is for several workers"),
    ):
        process = batch(folder, *SAME, *options, "--out", "out.csv", light=True)
        assert process.returncode == 2
        assert process.stderr.splitlines()[0] == f"beit: error: {message}"
        assert re.match("hint: ", process.stderr.splitlines()[1])


def test_a_device_that_is_not_there_ends_the_run(folder: Path) -> None:
    process = batch(folder, *SAME, "--devices", "cpu,cuda:7", "--out", "out.csv")
    assert process.returncode == 2
    assert "this machine has 0 CUDA devices" in process.stderr


def test_without_ray_the_hint_is_its_package(forty_images: Path) -> None:
    hide = "import sys; sys.modules['ray'] = None; from beitcli.__main__ import main; sys.exit(main())"
    command = [sys.executable, "-c", hide, "batch", "images", "-m", "demo", "--engine", "ray"]
    process = subprocess.run(command, cwd=forty_images, capture_output=True, text=True)
    assert process.returncode == 2
    assert process.stderr.splitlines()[-1] == "hint: pip install 'beitcli[ray]'"
