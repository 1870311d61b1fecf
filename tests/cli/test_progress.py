"""Progress on a terminal: a bar on stderr wherever the records do not go to that terminal."""

import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.conftest import SAMPLES

BATCH = [sys.executable, "-m", "beitcli", "batch", str(SAMPLES), "-m", "demo", "--no-ledger"]


def on_a_terminal(command: list[str], folder: Path) -> str:
    """Everything that the command prints with stdout and stderr on one terminal."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (30, 110))
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
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


def test_a_file_gets_a_bar(tmp_path: Path) -> None:
    printed = on_a_terminal([*BATCH, "--out", "out.csv"], tmp_path)
    assert " images [" in printed
    assert "images/s]" in printed
    assert "3 images: 0 kept, 3 decoded, 0 reused, 0 failed" in printed


@pytest.mark.parametrize("more", [["--out", "out.csv", "-q"], ["-f", "csv"]], ids=["quiet", "records on the terminal"])
def test_no_bar_where_it_would_be_in_the_way(tmp_path: Path, more: list[str]) -> None:
    assert " images [" not in on_a_terminal([*BATCH, *more], tmp_path)
