"""Fixtures of the tests of workers: a folder of good, odd and broken images, and finding and killing workers."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.cli.batches import Starter, batch, clean_environment, counts, grow, numbered

if TYPE_CHECKING:
    from tests.workers.cluster import Cluster

FIELD = Path(__file__).parent.parent / "field"


@pytest.fixture(autouse=True)
def no_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray makes no token in the home folder, and asks for none."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")


@pytest.fixture(scope="session")
def odd_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """500 images in `images`, a third of them broken or odd; some alike, one of them with a name that is no UTF-8."""
    folder = tmp_path_factory.mktemp("odd")
    images = folder / "images"
    images.mkdir()
    odd = [path for path in sorted(FIELD.iterdir()) if path.suffix not in (".md", ".json", ".csv", ".txt", ".tif")]
    random = np.random.default_rng(1)
    for number in range(500):
        path = images / f"{number:03}"
        match number % 9:
            case 0:
                shutil.copy(odd[number // 9 % len(odd)], path.with_suffix(odd[number // 9 % len(odd)].suffix))
            case 1:
                path.with_suffix(".jpg").write_bytes(random.bytes(number))
            case 2:
                Image.new("RGB", (9, 9), (number // 50, 0, 0)).save(path.with_suffix(".png"))
            case kind:
                size = (int(random.integers(1, 30)), int(random.integers(1, 30)), 3)
                image = Image.fromarray(random.integers(0, 256, size, np.uint8))
                image.save(path.with_suffix((".png", ".jpg", ".bmp")[kind % 3]))
    Image.new("L", (5, 5)).save(os.fsdecode(os.fsencode(images) + b"/caf\xe9.png"), "png")
    return folder


SAME = ("images", "-m", "demo", "--dtype", "fp32", "-b", 4)
"""Arguments of the runs that all write the same."""

TWO = ("--devices", "cpu,cpu")
"""Those that add two workers on this machine."""


@pytest.fixture(scope="session")
def local(odd_images: Path) -> bytes:
    """Output of a run on one device."""
    found = counts(batch(odd_images, *SAME, "--out", "out.csv", env=clean_environment()).stderr)
    assert found.images == 501
    assert found.failed > 60
    assert found.reused > 40
    return (odd_images / "out.csv").read_bytes()


@pytest.fixture
def folder(odd_images: Path, tmp_path: Path) -> Path:
    """An empty folder but for these images."""
    (tmp_path / "images").symlink_to(odd_images / "images")
    return tmp_path


@pytest.fixture
def forty_images(tmp_path: Path) -> Path:
    """A folder with good images in `images`."""
    grow(tmp_path / "images", numbered(40))
    return tmp_path


@pytest.fixture(scope="module")
def cluster() -> Iterator["Cluster"]:
    """A Ray cluster of a head alone, to which a test adds nodes."""
    from tests.workers.cluster import Cluster

    cluster = Cluster()
    yield cluster
    cluster.end()


@pytest.fixture(scope="module")
def two_nodes(cluster: "Cluster") -> "Cluster":
    """A Ray cluster whose nodes 2 and 3 have one core each."""
    cluster.start(2, 3)
    return cluster


@pytest.fixture(scope="module")
def on_cluster(two_nodes: "Cluster") -> tuple[str, ...]:
    """The options of a run on these nodes."""
    return ("--engine", "ray", "--address", two_nodes.address)


@pytest.fixture
def start() -> Iterator[Starter]:
    starter = Starter()
    yield starter
    starter.end()


def processes_with(text: str) -> list[int]:
    """The processes of this machine whose command line has the text."""
    found = []
    for entry in os.listdir("/proc"):
        with suppress(OSError):
            if entry.isdigit() and text in Path("/proc", entry, "cmdline").read_bytes().decode(errors="replace"):
                found.append(int(entry))
    return found


def parent_of(process: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def descendants(process: int) -> list[int]:
    """The processes below one, nearest first."""
    parents = {int(entry): parent_of(int(entry)) for entry in os.listdir("/proc") if entry.isdigit()}
    found = [process]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found[1:]


def workers_of(process: int) -> list[int]:
    """The workers among the processes below one: they are forked from a process that is started for that."""
    found: list[int] = []
    for each in descendants(process):
        with suppress(OSError):
            command = Path(f"/proc/{each}/cmdline").read_bytes()
            if b"multiprocessing.forkserver" in command and parent_of(each) not in (process, *found):
                found.append(each)
    return found


def kill(process: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def wait_until_gone(processes: list[int], seconds: float) -> None:
    until = time.monotonic() + seconds
    while any(os.path.exists(f"/proc/{process}") and not is_zombie(process) for process in processes):
        assert time.monotonic() < until, processes
        time.sleep(0.05)


def is_zombie(process: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    return True
