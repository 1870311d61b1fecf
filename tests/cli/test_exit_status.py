"""Exit statuses: one table of arguments, exit status and first line on stderr, each as a real process."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

Beit = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "good").mkdir()
    (tmp_path / "mixed").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no image")
    (tmp_path / "odd").mkdir()
    for name in ("good/a.png", "mixed/a.png", "mixed/b.png", "mixed/c.png", "photo", "odd/a.dat"):
        Image.new("RGB", (40, 30), "red").save(tmp_path / name, "PNG")
    (tmp_path / "named").write_text("photo\n")
    (tmp_path / "link").symlink_to("photo")
    (tmp_path / "linked").write_text("link\n")
    (tmp_path / "mixed" / "d.jpg").write_bytes(b"")
    (tmp_path / "list").write_text("good/a.png\nmissing.png\n")
    (tmp_path / "nothing").write_text("")
    (tmp_path / "all").write_text("good/a.png\nbroken.csv\n")
    return tmp_path


LIGHT = [
    ("classify", 2, "nothing to classify"),
    ("classify missing.jpg", 2, "`missing.jpg` does not exist"),
    ("classify m*ss/*.jpg", 2, "no image matches"),
    ("classify empty", 2, "no image in `empty`"),
    ("classify --files-from missing", 2, "cannot read the list"),
    ("classify - --files-from -", 2, "both want standard input"),
    ("classify good --null", 2, "--null is for a list"),
    ("classify good --bogus", 2, "No such option"),
    ("classify good -k x", 2, "Invalid value for '--top-k'"),
    ("classify good -k 0", 2, "--top-k 0"),
    ("classify good --format table", 2, "standard output is no terminal"),
    ("classify good --format parquet", 2, "standard output is no file"),
    ("classify good --out x.csv", 2, "no --out"),
    ("classify good --device abacus", 2, "--device abacus"),
    ("classify good --decode-timeout inf", 2, "--decode-timeout"),
    ("classify good --threshold nan", 2, "--threshold"),
    ("classify good -e .", 2, "no suffix"),
    ("classify good -m demo --revision main", 2, "only the Hub has revisions"),
    ("classify good --fp16 --dtype bf16", 2, "contradict"),
    ("classify good -m demo --fail-on 2", 2, "--fail-on 2"),
    ("classify good -m demo --label cta", 2, "no label `cta`"),
    ("classify good -m nonsense", 1, "`nonsense` is neither"),
    ("classify good -m ./nowhere", 1, "`./nowhere` is neither"),
    ("classify good", 1, "is not cached and the Hub cannot be reached"),
    ("batch good --out x.xyz", 2, "no format has the suffix"),
    ("classify good --dtype fp8", 2, "'--dtype': 'fp8' is not one of"),
    ("classify good -f jsonl --bom", 2, "--bom is for csv and tsv, not jsonl"),
    ("merge x.parquet good/a.png --bom", 2, "--bom is for csv and tsv, not parquet"),
    ("batch good --out x.csv --format table", 2, "a file is no terminal"),
    ("batch good --format parquet", 2, "standard output is no file"),
    ("batch good --out x.parquet.gz", 2, "compressed already"),
    ("batch good --out x.gz --format parquet", 2, "compressed already"),
    ("batch good --out x.csv -k 0", 2, "do not fit a csv"),
    ("batch good --out nowhere/x.csv", 1, "does not exist"),
    ("batch good --out mixed", 2, "no suffix names its format"),
    ("batch good --out mixed -f csv", 1, "names no file"),
    ("batch a.jpg --out b.JPG -f csv -m demo", 2, "`b.JPG` has the name of an image"),
    ("batch photo --out ./photo -f csv -m demo", 2, "`photo` is an input, and would be overwritten"),
    ("batch --files-from list --out list -f csv -m demo", 2, "`list` is an input, and would be overwritten"),
    ("batch --files-from named --out photo -f csv -m demo -q", 2, "`photo` is an input, and would be overwritten"),
    ("batch --files-from named --out ./photo -f csv -m demo -q --no-ledger", 2, "photo` is an input, and would be"),
    ("batch --files-from linked --out link -f csv -m demo -q", 2, "`link` is an input, and would be overwritten"),
    ("batch odd -e dat --out odd/a.dat -f csv -m demo -q", 2, "`odd/a.dat` is an input, and would be overwritten"),
    ("classify --files-from /proc/self/mem -m demo -q", 1, "cannot read on in the list: Input/output error"),
    ("models pull demo", 2, "nothing to download"),
    ("models pull base-224", 1, "Hub cannot be reached"),
]


@pytest.mark.parametrize(("line", "status", "message"), LIGHT, ids=[row[0] for row in LIGHT])
def test_errors_are_one_line(beit: Beit, folder: Path, line: str, status: int, message: str) -> None:
    check_mistake(beit(*line.split(), cwd=folder, light=True), status, message)


def check_mistake(process: "subprocess.CompletedProcess[bytes]", status: int, message: str) -> None:
    """Check for an empty stdout, and an error of one line, or two with a hint."""
    assert process.returncode == status, process.stderr
    assert process.stdout == b""
    lines = process.stderr.decode().splitlines()
    assert lines[0].startswith("beit: error: ")
    assert message in lines[0]
    assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("hint: "))


RUNS = [
    ("classify good -m demo", 0, 1, 0),
    ("classify mixed -m demo", 3, 4, 1),
    ("classify mixed -m demo --fail-on never", 0, 4, 1),
    ("classify mixed -m demo --fail-on 0.25", 0, 4, 1),
    ("classify mixed -m demo --fail-on 0.2", 3, 4, 1),
    ("classify --files-from list -m demo", 3, 2, 1),
    ("batch --files-from nothing -m demo", 0, 0, 0),
    ("batch mixed/d.jpg -m demo --out broken.csv", 3, 1, 1),
    ("batch --files-from all -m demo --out broken.csv --fail-on never", 0, 2, 1),
]


@pytest.mark.parametrize(("line", "status", "images", "failed"), RUNS, ids=[row[0] for row in RUNS])
def test_runs_count_what_they_did(beit: Beit, folder: Path, line: str, status: int, images: int, failed: int) -> None:
    process = beit(*line.split(), cwd=folder)
    assert process.returncode == status, process.stderr
    expected = f"{images} images: 0 kept, {images - failed} decoded, 0 reused, {failed} failed"
    assert expected in process.stderr.decode().splitlines()
    text = (folder / "broken.csv").read_bytes() if "broken.csv" in line else process.stdout
    assert text.count(b"\n") == 1 + images


def test_quiet_runs_print_only_errors(beit: Beit, folder: Path) -> None:
    process = beit("classify", "mixed", "-m", "demo", "-q", cwd=folder)
    assert (process.returncode, process.stderr) == (3, b"beit: error: 1 of 4 images failed (1 empty_file)\n")
    assert beit("classify", "mixed", "-m", "demo", "-q", "--fail-on", "0.25", cwd=folder).stderr == b""
    assert b"beit: error" in beit("classify", "missing", "-q", cwd=folder, light=True).stderr


def test_a_traceback_only_with_beit_debug(beit: Beit, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEIT_DEBUG", "1")
    process = beit("classify", "missing", cwd=folder, light=True)
    assert process.returncode == 1
    assert b"Traceback" in process.stderr


def test_parquet_without_pyarrow_is_a_mistake_that_names_the_extra(folder: Path) -> None:
    without = "import sys; sys.modules['pyarrow'] = None; from beitcli.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", without, "batch", "good", "-m", "nonsense", "--out", "x.parquet"]
    process = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert process.returncode == 2
    assert process.stderr.splitlines() == [
        "beit: error: `x.parquet`: Parquet needs pyarrow",
        "hint: `pip install 'beitcli[parquet]'`",
    ]


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("BEIT_MODEL", "./elsewhere", "`./elsewhere`"),
        ("BEIT_DEVICE", "abacus", "--device abacus"),
        ("BEIT_BATCH_SIZE", "0", "--batch-size"),
        ("BEIT_WORKERS", "-1", "--workers"),
    ],
)
def test_settings_from_the_environment(
    beit: Beit, folder: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert message in beit("classify", "good", cwd=folder, light=True).stderr.decode()


@pytest.mark.parametrize(
    ("line", "closed", "status", "rows"),
    [
        ("classify good -m demo", "0<&-", 0, 2),
        pytest.param("classify good -m demo", "2>&-", 0, 2, marks=pytest.mark.slow),
        ("classify good -m demo", "1>&-", 1, 0),
        ("models", "1>&-", 1, 0),
    ],
)
def test_closed_streams(folder: Path, line: str, closed: str, status: int, rows: int) -> None:
    command = f"exec {sys.executable} -m beitcli {line} {closed}"
    process = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True)
    assert process.returncode == status
    assert len(process.stdout.splitlines()) == rows
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("line", ["--version", "classify --help", "models", "--show-completion bash"])
def test_a_full_standard_output_is_one_line(folder: Path, line: str, unbuffered: str) -> None:
    command = [sys.executable, "-m", "beitcli", *line.split()]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "wb") as full:
        process = subprocess.run(command, cwd=folder, stdout=full, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.returncode == 1
    assert process.stderr == "beit: error: cannot write to standard output: No space left on device\n"


def test_a_pipe_that_does_not_wait_is_waited_for(folder: Path) -> None:
    """As an earlier program in a pipeline may leave it."""
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    command = [sys.executable, "-m", "beitcli", "classify", "--files-from", "-", "-m", "demo", "-q"]
    process = subprocess.Popen(command, cwd=folder, stdin=ours, stdout=subprocess.PIPE, text=True)
    os.close(ours)
    os.write(theirs, b"good/a.png\n")
    time.sleep(2)
    os.write(theirs, b"mixed/a.png\n")
    os.close(theirs)
    stdout, _ = process.communicate(timeout=60)
    assert (process.returncode, len(stdout.splitlines())) == (0, 3)


@pytest.mark.parametrize("line", ["classify good -m demo", "models", "--help", "classify nothing-there"])
def test_closed_pipes_change_nothing(folder: Path, line: str) -> None:
    """stdout and stderr are closed pipes: every run ends quietly."""
    ours, theirs = os.pipe()
    os.close(ours)
    command = [sys.executable, "-m", "beitcli", *line.split()]
    process = subprocess.run(command, cwd=folder, stdout=theirs, stderr=theirs)
    os.close(theirs)
    assert process.returncode == (2 if "nothing" in line else 0)


def test_notices_to_a_closed_pipe_cost_no_row(folder: Path) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    command = [sys.executable, "-m", "beitcli", "classify", "good", "-m", "demo"]
    process = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    assert process.returncode == 0
    assert process.stdout.count(b"\n") == 2


def test_without_arguments_there_is_help(beit: Beit) -> None:
    process = beit()
    assert process.returncode == 2
    assert re.search(rb"classify .*\n.*batch ", process.stdout)
    assert process.stderr == b""
