"""Whole processes: timed, ended with their parent, and failing with a reason."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from beitcli.bench.processes import Run, classified, finished, whole_runs
from beitcli.bench.versus import check_device, check_rivals
from beitcli.errors import BeitError, UsageError
from tests.inputs.test_loader import is_running

CHILD = "import pathlib, os, sys, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(60)"
PARENT = """
import sys
from beitcli import signals
from beitcli.bench.processes import finished
signals.listen()
finished([sys.executable, "-c", *sys.argv[1:]])
"""


def test_a_process_is_timed_to_its_end() -> None:
    seconds, printed = finished(
        [sys.executable, "-c", "import sys, time; time.sleep(0.3); sys.exit(print('x', file=sys.stderr))"]
    )
    assert seconds > 0.3
    assert printed == "x\n"


def test_a_failing_process_is_reported() -> None:
    code = "import sys; print('no\\nway', file=sys.stderr); sys.exit(7)"
    with pytest.raises(BeitError, match="ended with status 7") as caught:
        finished([sys.executable, "-c", code])
    assert caught.value.hint == "its last line: way"


def test_a_missing_rate() -> None:
    with pytest.raises(BeitError, match="reports no images/s"):
        classified([sys.executable, "-c", "pass"])


def test_summary_of_runs() -> None:
    runs = whole_runs(30, [Run(3.0, 20.0), Run(1.0, 60.0), Run(2.0, 40.0)])
    assert runs.images.per_second == 15
    assert runs.reported == (20.0, 60.0, 40.0)
    assert runs.reported_median == 40


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_child_ends_with_its_parent(tmp_path: Path, number: signal.Signals) -> None:
    pid_file = tmp_path / "pid"
    with subprocess.Popen([sys.executable, "-c", PARENT, CHILD, str(pid_file)], stderr=subprocess.DEVNULL) as parent:
        until = time.monotonic() + 30
        while not (pid_file.exists() and pid_file.read_text()):
            assert time.monotonic() < until
            time.sleep(0.02)
        parent.send_signal(number)
        parent.wait(timeout=20)
    while is_running(int(pid_file.read_text())):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_unavailable_rivals(monkeypatch: pytest.MonkeyPatch) -> None:
    check_rivals(["transformers"])
    with pytest.raises(UsageError, match="`vs=timm`: no such rival"):
        check_rivals(["timm"])
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UsageError, match="`vs=openvino`: it is not installed") as caught:
        check_rivals(["openvino"])
    assert caught.value.hint == "pip install openvino"
    with pytest.raises(UsageError, match="beit runs on cuda"):
        check_device(["openvino"], "cuda")
