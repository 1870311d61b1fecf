"""`beit train` stopped, killed, and on a full disk: it resumes and ends with the same weights."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import takewhile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.cli.test_disk import limit
from tests.cli.test_signals import start
from tests.cli.test_train import SMALL, Beit
from tests.conftest import SAMPLES
from tests.training.shapes import draw_classes


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return draw_classes(tmp_path / "shapes", 20)


@contextmanager
def begun(command: list[str], folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """Process of the command after a few steps."""
    with subprocess.Popen(
        [sys.executable, "-m", "beitcli", *command], cwd=folder, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr
        for line in process.stderr:
            if "step" in line:
                break
        yield process
        process.kill()


WAYS = {
    "from scratch": [*SMALL, "--epochs", "12"],
    "fine-tuned": ["--finetune", "-m", "beit", "-b", "8", "-j", "1", "--epochs", "10"],
}


@pytest.mark.slow
@pytest.mark.parametrize(("way", "ending"), [("from scratch", signal.SIGTERM), ("fine-tuned", signal.SIGHUP)])
def test_stopped_and_killed_it_goes_on_to_the_very_same_weights(
    beit: Beit, images: Path, tiny_beit: Path, tmp_path: Path, way: str, ending: signal.Signals
) -> None:
    (tmp_path / "beit").symlink_to(tiny_beit)

    def command(out: str) -> list[str]:
        return ["train", str(images), *WAYS[way], "--out", out]

    assert beit(*command("undisturbed"), "-q", timeout=300).returncode == 0
    with begun(command("model"), tmp_path) as process:
        process.send_signal(ending)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == -ending
        assert re.search(r"stopped: [1-9]\d* of \d+ steps are in `model.part`; the same command goes on", stderr)
    assert not (tmp_path / "model").exists()
    with begun(command("model"), tmp_path) as process:
        process.kill()
        assert process.wait(60) == -signal.SIGKILL
    other = beit(*command("model"), "--seed", "1")
    assert other.returncode == 2 and b"another seed: 0, not 1" in other.stderr
    last = beit(*command("model"), timeout=300)
    assert last.returncode == 0 and b"going on" in last.stderr, last.stderr
    expected, weights = (load_file(tmp_path / name / "model.safetensors") for name in ("undisturbed", "model"))
    assert expected.keys() == weights.keys()
    assert all(torch.equal(expected[name], weights[name]) for name in expected)


@pytest.mark.slow
def test_other_images_and_other_ways_of_reading_are_another_training(beit: Beit, images: Path, tmp_path: Path) -> None:
    command = ["train", str(images), *SMALL, "--epochs", "60", "--out", "model"]
    with begun(command, tmp_path) as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == -signal.SIGINT
    run = beit(*command, "--max-pixels", "5000")
    assert run.returncode == 2 and b"another max_pixels: 200000000, not 5000" in run.stderr
    begun_with = (tmp_path / "model.part" / "run.json").read_text()
    other = json.loads(begun_with)
    other["settings"]["version of beit"] = "0.0.1"
    (tmp_path / "model.part" / "run.json").write_text(json.dumps(other))
    run = beit(*command)
    assert run.returncode == 2 and b"another version of beit: 0.0.1, not " in run.stderr
    (tmp_path / "model.part" / "run.json").write_text(begun_with)
    shutil.copy(SAMPLES / "cat.jpg", images / "red" / "cat.jpg")
    run = beit(*command)
    assert run.returncode == 2 and b"other images" in run.stderr and b"delete that folder" in run.stderr
    assert (tmp_path / "model.part").exists()


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [False, True], ids=["at the end", "at a stop"])
def test_a_full_disk_is_one_line_and_room_lets_it_go_on(
    beit: Beit, images: Path, tmp_path: Path, stopped: bool
) -> None:
    command = ["train", str(images), *SMALL, "--epochs", "20" if stopped else "2", "--out", "model"]
    with subprocess.Popen(
        [sys.executable, "-m", "beitcli", *command],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(limit, 1_000_000),
    ) as process:
        assert process.stderr
        if stopped:
            next(line for line in process.stderr if "step" in line)
            process.send_signal(signal.SIGINT)
        stderr = process.stderr.read()
    assert (process.returncode, "Traceback" in stderr) == (1, False), stderr
    assert "beit: error: cannot write" in stderr and "hint: make room" in stderr
    assert "inline_container" not in stderr and "os error" not in stderr
    assert not (tmp_path / "model").exists()
    assert beit(*command).returncode == 0


LONG = [*SMALL, "--image-size", "8", "--epochs", "225"]  # long enough to be compiled


@pytest.mark.slow
def test_a_compiler_that_fails_costs_time_and_no_training(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken").write_text("#!/bin/sh\necho broken >&2; exit 1\n")
    (tmp_path / "broken").chmod(0o755)
    monkeypatch.setenv("CXX", str(tmp_path / "broken"))
    process = start("train", images, *LONG, "--out", "model", cwd=tmp_path, text=True)
    assert process.stderr
    stderr = "".join(takewhile(lambda line: not re.search(r"step \d", line), process.stderr))
    assert "compiling the layers" in stderr and "the layers run uncompiled" in stderr
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in stderr + rest) == (-signal.SIGTERM, False), rest


@pytest.mark.slow
def test_ctrl_c_while_it_compiles_is_a_clean_end(images: Path, tmp_path: Path) -> None:
    process = start("train", images, *LONG, "--out", "model", cwd=tmp_path, text=True)
    assert process.stderr
    while "compiling the layers" not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(3)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the compiler, too
    _, rest = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in rest) == (-signal.SIGINT, False), rest
    assert not (tmp_path / "model").exists() and (tmp_path / "model.part" / "run.json").exists()
