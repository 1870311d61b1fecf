"""File systems without modes, flushes, locks or replacement, and machines without shared memory: rows are written."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from shutil import which

import pytest

from tests.cli.batches import DEMO, batch, clean_environment, counts, grow
from tests.conftest import SAMPLES
from tests.sorting.trees import fill, ok, results, tree

HERE = (*DEMO, "-j", "0")  # where decoding in processes of its own is not the matter

SOURCE = Path(__file__).with_name("refusing.c")

WEAKER = {
    "fchmod": "this file system sets no modes",
    "fsync": "this file system does not flush files to its disk",
    "lock": "do not start a second run on `out.csv`",
    "rename-over": "this file system replaces no file in one step",
    "rename": "this file system replaces no file in one step",
}
"""The notice for each call that is refused."""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`refusing.c`, compiled."""
    compiler = which("cc")
    if not compiler:
        pytest.skip("no C compiler")
    path = tmp_path_factory.mktemp("library") / "refusing.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", path, SOURCE, "-ldl"], check=True)
    return path


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The rows of a run that nothing is refused."""
    folder = tmp_path_factory.mktemp("rows")
    batch(folder, SAMPLES, *HERE, "--out", "out.csv", env=clean_environment())
    return (folder / "out.csv").read_bytes()


def refusing(library: Path, *calls: str, number: int = errno.EPERM) -> dict[str, str]:
    return {**os.environ, "LD_PRELOAD": str(library), "REFUSED": ",".join(calls), "REFUSAL": str(number)}


@pytest.mark.parametrize(
    ("call", "number"),
    [
        ("lock", errno.ENOLCK),
        ("rename-over", errno.EPERM),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in (
                ("fchmod", errno.EPERM),
                ("fsync", errno.EINVAL),
                ("lock", errno.ENOSYS),
                ("rename", errno.ENOSYS),
            )
        ),
    ],
)
def test_records_are_written_where_a_call_is_refused_and_a_notice_says_once_what_is_weaker(
    library: Path, tmp_path: Path, rows: bytes, call: str, number: int
) -> None:
    out = tmp_path / "out.csv"
    out.write_text("before")
    out.chmod(0o600)
    process = batch(tmp_path, SAMPLES, *HERE, "--out", "out.csv", env=refusing(library, call, number=number))
    assert counts(process.stderr) == (3, 0, 3, 0, 0)
    assert process.stderr.count(WEAKER[call]) == 1
    assert process.stderr.count(os.strerror(number)) == (call != "fsync")
    assert out.read_bytes() == rows
    assert sorted(os.listdir(tmp_path)) == ["out.csv", "out.csv.edited", "out.csv.ledger"]
    assert (tmp_path / "out.csv.edited").read_text() == "before"


def test_where_all_are_refused_a_run_goes_on_from_its_ledger(library: Path, tmp_path: Path, rows: bytes) -> None:
    environment = refusing(library, *WEAKER, number=errno.ENOTSUP)
    same = (SAMPLES, *HERE, "--out", "out.csv")
    assert counts(batch(tmp_path, *same, env=environment).stderr) == (3, 0, 3, 0, 0)
    os.unlink(tmp_path / "out.csv")
    assert counts(batch(tmp_path, *same, env=environment).stderr) == (3, 3, 0, 0, 0)
    assert counts(batch(tmp_path, *same).stderr) == (3, 3, 0, 0, 0)  # by one with locks, too
    assert (tmp_path / "out.csv").read_bytes() == rows


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EROFS], ids=["missing", "read-only"])
def test_without_shared_memory_images_are_decoded_in_one_process(
    library: Path, tmp_path: Path, rows: bytes, number: int
) -> None:
    process = batch(
        tmp_path, SAMPLES, *DEMO, "-j", "2", "--out", "out.csv", env=refusing(library, "semaphore", number=number)
    )
    assert process.returncode == 0
    assert process.stderr.count(f"no decoding processes without a writable /dev/shm ({os.strerror(number)})") == 1
    assert (tmp_path / "out.csv").read_bytes() == rows


LARGE = """
import multiprocessing, sys
import numpy as np
from beitcli.inputs.decode import Decoding
from beitcli.inputs.loader import Loader
from beitcli.records import Source

class Large:
    shape, dtype = (500, 500, 3), "uint8"
    def __call__(self, image):
        return np.full(self.shape, len(image.getbands()), np.uint8)

with Loader(map(Source, sys.argv[1:]), Large(), Decoding(), 2) as loader:
    workers = {child.pid for child in multiprocessing.active_children()}
    items = list(loader)
    assert {child.pid for child in multiprocessing.active_children()} == workers
print(len(items), sum(int(item.pixels.sum()) for item in items))
"""


@pytest.mark.slow
def test_pixels_too_large_for_the_shared_memory_come_through_pipes_and_cost_no_worker(library: Path) -> None:
    names = [str(SAMPLES / "cat.jpg")] * 20
    command = [sys.executable, "-c", LARGE, *names]
    process = subprocess.run(
        command, env=refusing(library, "room", number=errno.ENOSPC), capture_output=True, text=True, timeout=120
    )
    assert (process.stdout, process.stderr) == (f"20 {20 * 500 * 500 * 3 * 3}\n", "")


def test_without_a_ledger_no_lock_is_needed(library: Path, tmp_path: Path, rows: bytes) -> None:
    process = batch(tmp_path, SAMPLES, *HERE, "--out", "out.csv", "--no-ledger", env=refusing(library, "lock"))
    assert process.returncode == 0
    assert (tmp_path / "out.csv").read_bytes() == rows
    assert os.listdir(tmp_path) == ["out.csv"]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("-m", "demo"), id="probe"),
        pytest.param(("--from-scratch", "tiny", "--epochs", "1", "-b", "2"), id="scratch", marks=pytest.mark.slow),
    ],
)
def test_a_model_is_written_where_modes_are_refused(library: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    for name in ("boats", "cat"):
        grow(tmp_path / "photos" / name, ["a.png", "b.png", "c.png"], seed=len(name))
    train = [sys.executable, "-m", "beitcli", "train", "photos", *options, "-j", "0", "--out", "model"]
    process = subprocess.run(
        train, cwd=tmp_path, env=refusing(library, "fchmod"), capture_output=True, text=True, timeout=120
    )
    assert process.returncode == 0, process.stderr
    assert process.stderr.count(WEAKER["fchmod"]) == 1
    assert (tmp_path / "model" / "model.safetensors").exists()


def test_a_bad_disk_is_no_refusal(library: Path, tmp_path: Path) -> None:
    """Rows that may not have reached the disk are not said to be there."""
    process = batch(
        tmp_path, SAMPLES, *HERE, "--out", "out.csv", "--no-ledger", env=refusing(library, "fsync", number=errno.EIO)
    )
    assert process.returncode == 1
    assert f"beit: error: cannot write the records: {os.strerror(errno.EIO)}" in process.stderr
    assert not (tmp_path / "out.csv").exists()


def test_in_a_deleted_folder_absolute_paths_are_read_and_written(tmp_path: Path, rows: bytes) -> None:
    (tmp_path / "folder").mkdir()
    process = batch(
        tmp_path / "folder",
        *(SAMPLES, *HERE, "--out", tmp_path / "out.csv"),
        preexec_fn=lambda: os.rmdir(tmp_path / "folder"),
    )
    assert counts(process.stderr) == (3, 0, 3, 0, 0)
    assert process.stderr.startswith(
        "beit: the working folder is deleted: only absolute paths can be read and written\n"
    )
    assert (tmp_path / "out.csv").read_bytes() == rows


@pytest.mark.parametrize(
    "line",
    [
        f"batch {SAMPLES} -m demo --out out.csv -q",
        "batch cat.jpg -m demo --out out.csv",
        "classify cat.jpg -m demo",
        "classify *.jpg -m demo",
        "eval val -m demo",
    ],
)
def test_in_a_deleted_folder_a_relative_path_is_an_error_but_none_of_usage(tmp_path: Path, line: str) -> None:
    (tmp_path / "folder").mkdir()
    process = subprocess.run(
        [sys.executable, "-m", "beitcli", *line.split()],
        cwd=tmp_path / "folder",
        preexec_fn=lambda: os.rmdir(tmp_path / "folder"),
        capture_output=True,
        text=True,
    )
    assert process.returncode == 1
    assert "beit: error: " in process.stderr
    assert "Traceback" not in process.stderr
    assert "/proc/" not in process.stderr  # where the process is since


@pytest.mark.parametrize("mode", ["copy", "move"])
def test_images_are_sorted_and_taken_back_where_nothing_is_linked_flushed_or_locked(
    library: Path, tmp_path: Path, mode: str
) -> None:
    fill(tmp_path, "photos/a.jpg", "photos/b/a.jpg", "photos/b/a.xmp")
    predictions = results(tmp_path / "p.jsonl", ok("photos/a.jpg", "cat"), ok("photos/b/a.jpg", "cat"))
    before, environment = tree(tmp_path), refusing(library, "link", "fchmod", "fsync", "lock", number=errno.EPERM)
    sort = [sys.executable, "-m", "beitcli", "sort"]
    for arguments in ([predictions, "--to", "sorted", f"--{mode}"], ["--undo", "sorted"]):
        process = subprocess.run([*sort, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert process.returncode == 0, process.stderr
        if "--to" in arguments:
            assert tree(tmp_path / "sorted").keys() == {"cat/a.jpg", "cat/a_2.jpg", "cat/a_2.xmp"}
    assert (tree(tmp_path), (tmp_path / "sorted").exists()) == (before, False)
