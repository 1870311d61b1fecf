"""`beit bench` as a real process: JSON, tables, usage errors, and stopping."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from beitcli.bench.agreement import Agreement
from beitcli.bench.ceiling import Ceiling
from beitcli.bench.clock import rate_of, timing_of
from beitcli.bench.decoding import DecodingRates
from beitcli.bench.images import MeasuredImages
from beitcli.bench.machine import Machine
from beitcli.bench.model import ModelRate
from beitcli.bench.processes import StartUp, WholeRuns
from beitcli.bench.recommendation import recommend
from beitcli.bench.report import Benchmark, tables
from beitcli.bench.shapes import TINY
from beitcli.bench.versus import Duel
from beitcli.model.runtime import Runtime
from beitcli.tables import show
from tests.cli.test_signals import descendants
from tests.conftest import SAMPLES
from tests.inputs.test_loader import is_running

Beit = Callable[..., "subprocess.CompletedProcess[bytes]"]


def times(value: Any) -> list[list[float]]:
    """Every list of repeated timings in a report."""
    if isinstance(value, dict):
        return [value["seconds"]] if "seconds" in value else [each for item in value.values() for each in times(item)]
    return [each for item in value for each in times(item)] if isinstance(value, list) else []


@pytest.mark.slow
def test_json_holds_every_figure(beit: Beit, tmp_path: Path) -> None:
    process = beit("bench", SAMPLES, "--shape", "tiny", "-n", 3, "--json", "--device", "cpu")
    report = json.loads(process.stdout)
    assert (process.returncode, report["shape"]["name"]) == (0, "tiny")
    assert list(report) == [
        "version", "shape", "gflop_per_image", "machine", "images", "ceilings", "models",
        "agreements", "decoding", "start_up", "batch", "duels", "recommendation",
    ]  # fmt: skip
    assert report["images"] | {"median_bytes": 0} == {
        "count": 3,
        "left_out": 0,
        "median_bytes": 0,
        "synthetic": False,
    }
    assert {rate["batch_size"] for rate in report["models"]} == {1, 8, 16, 32}
    assert {rate["runtime"]["dtype"] for rate in report["models"]} == {most["dtype"] for most in report["ceilings"]}
    assert len(report["agreements"]) == len(report["ceilings"])
    largest = {each["runtime"]["dtype"]: each["largest"] for each in report["agreements"]}
    assert [dtype for dtype in largest if largest[dtype] == 0] == ["fp32"]
    assert {each["images"] for each in report["agreements"]} == {3}
    assert report["batch"]["images"]["per_second"] == 3 / report["batch"]["images"]["timing"]["median"]
    assert len(report["start_up"]) == 3
    assert len(times(report)) == 2 * len(report["ceilings"]) + len(report["models"]) + 2 + 3 + 1
    assert all(seconds and min(seconds) > 0 for seconds in times(report))
    assert report["recommendation"]["batch_size"] in (1, 8, 16, 32)
    notices = process.stderr.decode().splitlines()
    assert "beit: measuring beit batch on 3 images" in notices
    assert all(line.startswith("beit: ") for line in notices)


@pytest.fixture
def report() -> Benchmark:
    """Made-up figures."""
    rate, timing = rate_of(6, [3.0, 2.0, 1.0]), timing_of([1.0, 0.5])
    decoding, runs = DecodingRates(rate, rate), WholeRuns(rate, (3.5, 4.5), 4.0)
    models = [ModelRate(Runtime("cpu", "bf16"), size, rate, 900.0, 0.5) for size in (1, 8)]
    return Benchmark(
        version="1.2.3",
        shape=TINY,
        gflop_per_image=35.13,
        machine=Machine("Abacus", 2, 4, True, None, "cpu", "bf16", True, "3.11.7", "2.6.0"),
        images=MeasuredImages(7, 2, 50_400.0, synthetic=False),
        ceilings=[Ceiling("bf16", 4096, rate, rate, packed=True)],
        models=models,
        agreements=[Agreement(Runtime("cpu", "bf16", compiled=True), 7, 0.9714, 0.0123)],
        decoding=decoding,
        start_up=StartUp(timing, timing, timing),
        batch=runs,
        duels=[Duel("--compile", "transformers", "5.0", "defaults", runs, runs, 1.0, 1.5)],
        recommendation=recommend(models, decoding, 2),
    )


def test_tables_are_plain_text_in_a_pipe(report: Benchmark, capsys: pytest.CaptureFixture[str]) -> None:
    show(tables(report))
    blocks = capsys.readouterr().out.rstrip().split("\n\n")
    assert [block.splitlines()[0] for block in blocks] == [table.title for table in tables(report)]
    assert re.search(r"^  images +7 of 50 KB, yours, 2 more could not be read$", blocks[0], re.MULTILINE)
    assert blocks[2].splitlines()[1:3] == [
        "  dtype  batch  images/s  GFLOP/s  of its linear maps",
        "  bf16   1      3.00      900      50%",
    ]
    assert blocks[3].splitlines()[0] == "Against fp32, 7 images"
    assert blocks[3].splitlines()[-1].split() == ["bf16,", "compiled", "0.012", "97.1%"]
    assert blocks[7].splitlines()[-1].split() == ["ours", "over", "theirs", "1.00", "×", "1.50", "×"]
    assert "  options     --dtype bf16 -b 1 -j 2" in blocks[-1]


def test_tables_are_drawn_on_a_terminal(
    report: Benchmark, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    show(tables(report))
    drawn = capsys.readouterr().out
    assert all(table.title in drawn for table in tables(report))
    assert "--dtype bf16 -b 1 -j 2" in drawn


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shape", "huge"], b"--shape huge: no such shape"),
        (["--vs", "timm"], b"--vs timm: no such rival"),
        (["--device", "tpu"], b"--device tpu: no such device"),
        (["no-such-file"], b"no-such-file"),
        (["-n", "0"], b"--images"),
    ],
)
def test_mistakes(beit: Beit, arguments: list[str], message: bytes) -> None:
    process = beit("bench", *arguments, light=True)
    assert process.returncode == 2
    assert message in process.stderr
    assert process.stdout == b""


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "beitcli", "bench", "--shape", "tiny", "-n", "2"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, start_new_session=True) as process:
        assert process.stderr is not None
        while b"measuring start-up" not in process.stderr.readline():
            assert process.poll() is None
        until = time.monotonic() + 60
        while not (children := descendants(process)):
            assert time.monotonic() < until
        os.killpg(process.pid, signal.SIGINT)
        assert b"Traceback" not in process.stderr.read()
        assert process.wait(timeout=20) == -signal.SIGINT
    assert not any(map(is_running, children))
    assert not list(tmp_path.iterdir())
