"""A request to stop is deferred within a block, but not for longer than its limit."""

import signal
import subprocess
import sys
import time

import pytest

SCRIPT = """
import sys, time
from beitcli import signals

signals.listen()
print("ready", flush=True)
begin = time.monotonic()
try:
    with signals.held({held}):
        time.sleep({block})
        print("whole", flush=True)
    signals.check()
    print("not stopped", flush=True)
    time.sleep({after})
except signals.Stopped as stopped:
    print(f"{{time.monotonic() - begin:.2f}}", flush=True)
    signals.die_by(stopped.signal_number)
"""


def run(number: signal.Signals | None, held: str, block: float, after: float = 0, times: int = 1) -> tuple[int, str]:
    """Exit status and output of a process that received the signal inside the block."""
    script = SCRIPT.format(held=held, block=block, after=after)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for _ in range(times if number else 0):
            time.sleep(0.2)
            process.send_signal(number or signal.SIGTERM)
        output = process.stdout.read()
    return process.returncode, output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("held", ["", "30"])
def test_a_block_that_ends_in_time_is_whole(number: signal.Signals, held: str) -> None:
    status, output = run(number, held, block=0.6)
    assert status == -number
    whole, seconds = output.split()
    assert whole == "whole"
    assert 0.6 <= float(seconds) < 6


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_block_that_outlives_its_seconds_is_interrupted(number: signal.Signals) -> None:
    status, output = run(number, "0.4", block=20)
    assert status == -number
    assert 0.5 <= float(output) < 5


def test_the_second_request_ends_the_process_at_once() -> None:
    assert run(signal.SIGTERM, "", block=20, times=2) == (-signal.SIGTERM, "")


def test_a_second_hang_up_is_the_same_request() -> None:
    """A shell sends one to its jobs, and its terminal another."""
    status, output = run(signal.SIGHUP, "", block=0.9, times=2)
    assert (status, output.split()[0]) == (-signal.SIGHUP, "whole")


def test_outside_a_block_a_request_interrupts() -> None:
    status, output = run(signal.SIGTERM, "0.01", block=0.0, after=20)
    assert status == -signal.SIGTERM
    assert output.startswith("whole\nnot stopped\n")


def test_without_a_request_nothing_is_interrupted() -> None:
    assert run(None, "0.1", block=0.4) == (0, "whole\nnot stopped\n")


@pytest.mark.parametrize(
    "block", ["time.sleep(60)", "with signals.held(): time.sleep(0.5); print('whole')\n    time.sleep(60)"]
)
def test_a_request_that_comes_in_a_destructor_is_not_lost(block: str) -> None:
    script = (
        "import time\nfrom beitcli import signals\n"
        "class Slow:\n    def __del__(self):\n        print('ready', flush=True)\n        time.sleep(60)\n"
        f"signals.listen()\ntry:\n    Slow()\n    {block}\nexcept signals.Stopped:\n    print('stopped')"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=30)
    assert output.split() == (["whole", "stopped"] if "whole" in block else ["stopped"])
    assert errors == ""
