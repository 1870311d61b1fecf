"""Progress on a terminal: a bar on stderr wherever the records do not go to that terminal."""

import os
import pty
import re
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from beitcli.cli.bars import Bars
from beitcli.cli.lines import Lines
from tests.conftest import SAMPLES
from tests.model.test_hub import SAFETENSORS, FakeHub
from tests.training.shapes import draw_classes

BATCH = ("batch", SAMPLES, "-m", "demo")

OnATerminal = Callable[..., str]


@pytest.fixture
def on_a_terminal(tmp_path: Path) -> OnATerminal:
    """`beit` with stdout and stderr on one terminal of 110 columns; gives everything that it prints there."""

    def run(*arguments: object, stdin: bytes = b"", **environment: str) -> str:
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (30, 110))
        command = [sys.executable, "-m", "beitcli", *map(str, arguments)]
        settings = {"cwd": tmp_path, "env": {**os.environ, **environment}}
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=theirs, stderr=theirs, **settings) as process:  # type: ignore[call-overload]
            os.close(theirs)
            process.stdin.write(stdin)
            process.stdin.close()
            printed = b""
            while True:
                try:
                    part = os.read(ours, 4096)
                except OSError:  # how a terminal without its other end says so
                    break
                if not part:
                    break
                printed += part
        os.close(ours)
        assert process.returncode == 0, printed
        return printed.decode()

    return run


def counts(printed: str, stage: str) -> list[tuple[int, int]]:
    """The counts and totals that the bar of the stage went through."""
    drawn = re.findall(rf"\r{stage}: +\d+%\|[^|]*\| (\d+)/(\d+) \[\d+:\d+<", printed)
    return [(int(done), int(total)) for done, total in drawn]


@pytest.mark.slow
def test_a_file_of_a_thousand_images_gets_a_moving_bar_with_a_total(
    on_a_terminal: OnATerminal, tmp_path: Path, tiny_beit: Path
) -> None:
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (1000, 32, 32, 3), np.uint8)):
        folder = tmp_path / "images" / str(number % 10)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    printed = on_a_terminal("batch", "images", "-m", tiny_beit, "-j", "1", "--out", "x.csv")
    drawn = counts(printed, "classifying")
    assert len(set(drawn)) >= 2 and {total for _, total in drawn} == {1000}
    assert "1000 images: 0 kept, 1000 decoded, 0 reused, 0 failed" in printed
    assert max(map(len, re.split(r"[\r\n]+", printed))) <= 110


@pytest.mark.slow
def test_images_that_need_no_work_are_part_of_the_count(on_a_terminal: OnATerminal, tmp_path: Path) -> None:
    shutil.copytree(SAMPLES, tmp_path / "images")
    on_a_terminal("batch", "images", "-m", "demo", "--out", "x.csv")
    os.utime(tmp_path / "images" / "cat.jpg", (1, 1))
    printed = on_a_terminal("batch", "images", "-m", "demo", "--out", "x.csv")
    assert "3 images: 2 kept, 0 decoded, 1 reused" in printed
    assert re.search(r"\rclassifying: (3 images|100%\|[^|]*\| 3/3) \[", printed)


def test_images_that_need_no_work_are_no_measure_of_the_rate(capfd: pytest.CaptureFixture[str]) -> None:
    with closing(Bars()) as bars:
        bars.stage("classifying", 100)
        bars.kept(80)
        time.sleep(0.2)  # twice the time between two drawings
        bars.progress(4)
    done, total, rate = re.findall(r"(\d+)/(\d+) \[[^ ]* *([\d.]+) images/s\]", capfd.readouterr().err)[-1]
    assert (done, total) == ("84", "100") and float(rate) <= 4 / 0.2


@pytest.mark.slow
def test_a_list_on_standard_input_has_no_total(on_a_terminal: OnATerminal) -> None:
    listed = "".join(f"{SAMPLES}/{name}.jpg\n" for name in ("cat", "boats"))
    printed = on_a_terminal(
        "batch", "--files-from", "-", "-m", "demo", "--no-ledger", "--out", "x.csv", stdin=listed.encode()
    )
    assert "classifying: 2 images [" in printed and counts(printed, "classifying") == []


SMALL = ("--from-scratch", "tiny", "--image-size", "16", "-b", "2", "-j", "0", "--epochs", "2", "--val-share", ".5")
STAGES = [
    pytest.param(("embed", SAMPLES, "-m", "demo", "--out", "x.npy"), {"writing": (0, 3)}, id="embed"),
    pytest.param(("eval", "val", "-m", "demo"), {"classifying": (3, 3)}, id="eval"),
    pytest.param(("merge", "all.csv", "part.jsonl"), {"writing": (0, 2500)}, id="merge"),
    pytest.param(
        ("train", "shapes", "-m", "demo", "--out", "probe"),
        {"features": (8, 8), "fitting": (0, 6)},
        id="probe",
        marks=pytest.mark.slow,
    ),
    pytest.param(
        ("train", "shapes", *SMALL, "--out", "new"),
        {"reading": (0, 8), "training": (4, 4), "validation": (0, 4)},
        id="training",
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("command", "stages"), STAGES)
def test_the_bar_names_the_stages_of_each_command(
    on_a_terminal: OnATerminal, tmp_path: Path, command: tuple[object, ...], stages: dict[str, tuple[int, int]]
) -> None:
    draw_classes(tmp_path / "shapes", 4)
    shutil.copytree(SAMPLES, tmp_path / "val" / "cat")
    row = '{"source": "%d", "status": "error", "error": {"code": "io_error", "message": ""}}\n'
    (tmp_path / "part.jsonl").write_text("".join(row % number for number in range(2500)))
    printed = on_a_terminal(*command)
    for stage, count in stages.items():
        assert count in counts(printed, stage), (stage, printed)


def test_a_download_shows_a_bar(on_a_terminal: OnATerminal, tmp_path: Path) -> None:
    with FakeHub() as hub:
        hub.commits["me/model"] = [SAFETENSORS]
        settings = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
        printed = on_a_terminal("models", "pull", "me/model", **settings)
        hub.stop()
    assert re.search(r"model.safetensors: 100%\|.*50.0", printed)


@pytest.mark.parametrize(
    "more",
    [pytest.param(["--out", "out.csv", "-q"], marks=pytest.mark.slow), ["-f", "csv"]],
    ids=["quiet", "records on the terminal"],
)
def test_no_bar_where_it_would_be_in_the_way(on_a_terminal: OnATerminal, more: list[str]) -> None:
    assert "classifying" not in on_a_terminal(*BATCH, "--no-ledger", *more)


def test_the_number_of_workers_is_beside_the_rate(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beitcli.cli.lines.PROGRESS_INTERVAL", 0.0)
    lines = Lines()
    lines.stage("classifying")
    lines.progress(3)
    lines.workers(4)
    lines.progress(5)
    first, second = capfd.readouterr().err.splitlines()
    assert re.fullmatch(r"beit: 3 images so far, [\d.]+ images/s", first)
    assert re.fullmatch(r"beit: 8 images so far, 4 workers, [\d.]+ images/s", second)
    with closing(Bars()) as bars:
        bars.stage("classifying", 10)
        bars.workers(4)
        bars.progress(5)
    assert re.search(r"images/s, 4 workers\]", capfd.readouterr().err)
