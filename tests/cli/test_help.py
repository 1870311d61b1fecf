"""`beit help`: the manual in a terminal and in a pipe."""

import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT

MANUAL = ROOT / "beitcli" / "manual"
CYAN = "\x1b[1;36m"
CHAPTERS = sorted(path.stem for path in MANUAL.glob("*.md"))


def help_of(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "beitcli", "help", *arguments], capture_output=True, text=True)


def on_a_terminal(*arguments: str, **environment: str) -> str:
    """Output of `beit help` on a terminal; it has to end by itself."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "beitcli", "help", *arguments]
    settings = {"TERM": "xterm-256color", "COLUMNS": "80", **environment}
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "LESS", "PAGER")}
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=kept | settings, start_new_session=True
    ) as process:
        os.close(theirs)
        drawn = b""
        while True:
            try:
                drawn += os.read(ours, 65536)
            except OSError:  # Linux ends a terminal that nobody holds any more with an error
                break
        assert process.wait(timeout=60) == 0
    os.close(ours)
    return drawn.decode()


def test_without_a_chapter_they_are_listed() -> None:
    shown = help_of()
    assert shown.returncode == 0
    assert [line.split()[0] for line in shown.stdout.splitlines()] == CHAPTERS
    assert {"inputs", "outputs", "resume", "models", "embed", "evaluate", "train", "python", "cli"} <= set(CHAPTERS)


def test_a_pipe_gets_the_markdown() -> None:
    shown = help_of("resume")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout == (MANUAL / "resume.md").read_text()


def test_an_unknown_chapter_is_a_usage_error_that_names_them() -> None:
    shown = help_of("no-such-chapter")
    assert (shown.returncode, shown.stdout) == (2, "")
    assert shown.stderr == (
        f"beit: error: no chapter `no-such-chapter` in the manual\nhint: one of {', '.join(CHAPTERS)}\n"
    )


def test_a_reader_that_has_seen_enough_ends_it_silently() -> None:
    command = f"set -o pipefail; {sys.executable} -m beitcli help cli | head -1"
    shown = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (shown.returncode, shown.stdout, shown.stderr) == (
        0,
        "# Every command and option, as `--help` prints them\n",
        "",
    )


def test_a_full_disk_is_one_line() -> None:
    command = f"{sys.executable} -m beitcli help cli > /dev/full"
    shown = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert shown.returncode == 1
    assert shown.stderr == "beit: error: cannot write to standard output: No space left on device\n"


def test_a_locale_of_ascii_gets_utf_8_too() -> None:
    locale = {**os.environ, "PYTHONIOENCODING": "ascii"}
    shown = subprocess.run([sys.executable, "-m", "beitcli", "help", "design"], capture_output=True, env=locale)
    assert shown.stdout == (MANUAL / "design.md").read_bytes()


@pytest.mark.parametrize("pager", ["no-such-pager --with 'an option'", "", "'unbalanced"])
def test_a_terminal_without_a_pager_gets_it_drawn_all_the_same(pager: str) -> None:
    drawn = on_a_terminal("resume", PAGER=pager)
    assert "\x1b[1m" in drawn  # bold
    assert CYAN in drawn
    assert "**" not in drawn
    assert "--retry-errors" in drawn


def test_the_pager_gets_the_text(tmp_path: Path) -> None:
    pager = tmp_path / "pager"
    pager.write_text(f'#!/bin/sh\ncat > "{tmp_path}/paged"; echo "LESS=$LESS"\n')
    pager.chmod(0o755)
    assert on_a_terminal("limits", PAGER=str(pager)) == "LESS=FRX\r\n"
    assert "Windows is not supported" in (tmp_path / "paged").read_text()


def test_ctrl_c_is_the_pagers(tmp_path: Path) -> None:
    """A pager may end a search by it; `beit` waits for the pager to end."""
    pager = tmp_path / "pager"
    pager.write_text(
        "#!/bin/sh\n"
        'cd "$(dirname "$0")"\n'
        "trap 'touch caught; exit 0' INT\n"
        "cat > /dev/null\n"
        "touch ready\n"
        "while :; do sleep 0.05; done\n"
    )
    pager.chmod(0o755)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "beitcli", "help", "limits"]
    settings = {**os.environ, "TERM": "xterm", "PAGER": str(pager)}
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=settings, start_new_session=True
    ) as process:
        os.close(theirs)
        while not (tmp_path / "ready").exists():
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=60) == 0
    os.close(ours)
    assert (tmp_path / "caught").exists()


def test_no_color_leaves_colours_out() -> None:
    plain = on_a_terminal("resume", PAGER="", NO_COLOR="1")
    assert "--retry-errors" in plain
    assert not re.search("\x1b\\[[0-9;]*3[0-7]", plain)
