"""Order, alignment and recovery of the loader: real worker processes, really killed."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from beitcli.inputs.decode import Decoding
from beitcli.inputs.loader import Decoded, Item, Loader
from beitcli.records import Failure, Fetched, Source
from tests.inputs.first_pixel import FirstPixel

LIMITS = Decoding(seconds=20)

# A death is noticed anywhere: while the standard library uses a socket, or torch opens files to see if it can.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture
def images(tmp_path: Path) -> list[Item]:
    """Sixty items: greys that encode their number, every seventh file broken, one failure from before."""
    items: list[Item] = []
    for number in range(60):
        path = tmp_path / f"{number:02}.png"
        if number % 7 == 3:
            path.write_bytes(b"no image")
        else:
            Image.new("RGB", (5, 4), (number, number, number)).save(path)
        items.append(Source(str(path)))
    items[20] = Failure(Source("folder"), "permission", "closed")
    items[30] = Fetched(Source("http://localhost/30.png", "url"), (tmp_path / "30.png").read_bytes())
    return items


def summary(results: Iterator[Decoded | Failure]) -> list[object]:
    return [a.code if isinstance(a, Failure) else int(a.pixels[0, 0, 0]) for a in results]


def expected(items: list[Item]) -> list[object]:
    codes: list[object] = ["not_an_image" if number % 7 == 3 else number for number in range(len(items))]
    codes[20] = "permission"
    return codes


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_results_are_in_order_and_belong_to_their_source(images: list[Item], workers: int) -> None:
    with Loader(iter(images), FirstPixel(), LIMITS, workers) as loader:
        results = list(loader)
    assert summary(iter(results)) == expected(images)
    sources = [item.source if isinstance(item, (Fetched, Failure)) else item for item in images]
    assert [result.source for result in results] == sources


def test_it_reads_ahead_only_what_workers_need(images: list[Item]) -> None:
    read = []

    def endless() -> Iterator[Item]:
        while True:
            read.append(1)
            yield images[0]

    with Loader(endless(), FirstPixel(), LIMITS, 2) as loader:
        results = iter(loader)
        for _ in range(200):
            next(results)
        assert len(read) < 200 + 2 * 3 * 8


def test_few_large_bodies_are_in_flight(images: list[Item], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beitcli.inputs.loader.MOST_IN_FLIGHT", 300_000)
    body = Path(images[0].location).read_bytes() + bytes(100_000)  # type: ignore[union-attr]  # it is a Source
    taken = []

    def bodies() -> Iterator[Item]:
        for number in range(60):
            taken.append(number)
            yield Fetched(Source(f"http://localhost/{number}.png", "url"), body)

    with Loader(bodies(), FirstPixel(), LIMITS, 4) as loader:
        ahead = [len(taken) - done for done, _ in enumerate(loader)]
    assert len(ahead) == 60
    assert max(ahead) <= 6  # three with the workers, and the results of a list


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGSEGV])
def test_workers_that_are_killed_cost_no_image(images: list[Item], death: signal.Signals) -> None:
    many = images * 5
    results = []
    with Loader(iter(many), FirstPixel(), LIMITS, 2) as loader:
        for count, result in enumerate(loader):
            results.append(result)
            if count in (0, 50, 51, 200):
                with suppress(ProcessLookupError):  # it may have ended already
                    os.kill(children()[count % 2], death)
    assert summary(iter(results)) == expected(images) * 5


class KillsWorkers:
    """An object that is there until the workers that it kills are dead."""

    def __del__(self) -> None:
        killed = children()
        for child in killed:
            os.kill(child, signal.SIGKILL)
        while any(map(is_running, killed)):
            time.sleep(0.005)


def test_workers_that_die_while_an_object_is_deleted_cost_no_image_and_no_traceback(images: list[Item]) -> None:
    """An exception is printed and lost there, as pytest notices."""
    deleted = threading.Event()

    def delete(*_: object) -> None:
        if loader._waiting and not deleted.is_set():
            deleted.set()
            KillsWorkers()

    def keep_asking() -> None:
        while not deleted.wait(0.001):
            os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, delete)
    try:
        with Loader(iter(images * 5), FirstPixel(), LIMITS, 2) as loader:
            results = iter(loader)
            first = next(results)
            asking = threading.Thread(target=keep_asking)
            asking.start()
            found = [first, *results]
            asking.join(10)
    finally:
        deleted.set()
        signal.signal(signal.SIGUSR1, before)
    assert summary(iter(found)) == expected(images) * 5


def test_a_worker_that_another_death_interrupts_the_look_at_is_reaped(
    images: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    waitpid = os.waitpid

    def interrupted(process: int, options: int) -> tuple[int, int]:
        found = waitpid(process, options)
        if found[0]:
            signal.raise_signal(signal.SIGCHLD)
        return found

    monkeypatch.setattr(os, "waitpid", interrupted)
    with Loader(iter(images * 5), FirstPixel(), LIMITS, 2) as loader:
        for count, _ in enumerate(loader):
            if count in (0, 50, 51, 200):
                killed = children()
                for child in killed:
                    os.kill(child, signal.SIGKILL)
                while any(map(is_running, killed)):
                    time.sleep(0.005)
    assert not children()


def test_an_image_that_crashes_its_decoder_is_the_only_one_to_fail(images: list[Item], tmp_path: Path) -> None:
    items = list(images)
    for place, colour in ((5, (255, 0, 0)), (6, (0, 255, 0)), (40, (255, 0, 0))):
        path = tmp_path / f"evil{place}.png"
        Image.new("RGB", (2, 2), colour).save(path)
        items[place] = Source(str(path))
    results = expected(images)
    results[5], results[6], results[40] = "decoder_crashed", "out_of_memory", "decoder_crashed"
    with Loader(iter(items), FirstPixel(), LIMITS, 2) as loader:
        assert summary(iter(loader)) == results


@pytest.mark.timeout(60)
@pytest.mark.parametrize("place", [5, 59])
def test_a_worker_that_dies_with_a_lock_causes_no_deadlock(images: list[Item], place: int, tmp_path: Path) -> None:
    Image.new("RGB", (2, 2), (0, 0, 255)).save(tmp_path / "blue.png")
    items = [*images[:place], Source(str(tmp_path / "blue.png")), *images[place + 1 :]]
    with Loader(iter(items), FirstPixel(), LIMITS, 2) as loader:
        results = summary(iter(loader))
    assert results == [*expected(images)[:place], 0, *expected(images)[place + 1 :]]


def test_an_image_that_never_ends_is_a_timeout(images: list[Item], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "silent.png")
    items = [*images[:12], Source(str(tmp_path / "silent.png")), *images[12:18]]
    with Loader(iter(items), FirstPixel(), Decoding(seconds=1), 2) as loader:
        results = list(loader)
    assert summary(iter(results)) == [*expected(images)[:12], "timeout", *expected(images)[12:18]]
    assert "--decode-timeout" in next(a.message for a in results if isinstance(a, Failure) and a.code == "timeout")


def test_leaving_early_leaves_no_process(images: list[Item]) -> None:
    with Loader(iter(images * 10), FirstPixel(), LIMITS, 3) as loader:
        next(iter(loader))
        workers = children()
        assert len(workers) == 3
    assert not any(map(is_running, workers))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_leave_signals_to_their_parent(images: list[Item], number: signal.Signals) -> None:
    with Loader(iter(images * 3), FirstPixel(), LIMITS, 2) as loader:
        results = iter(loader)
        first = next(results)
        workers = children()
        for worker in workers:
            os.kill(worker, number)
        assert all(map(is_running, workers))
        rest = list(results)
    assert summary(iter([first, *rest])) == expected(images) * 3


ORPHANS = """
import os, sys, time
from beitcli.inputs.decode import Decoding
from beitcli.inputs.loader import Loader
from beitcli.model.preprocessing import paper_preprocessing
from beitcli.records import Source

with Loader(iter([Source(sys.argv[1])] * 4), paper_preprocessing(32), Decoding(seconds=60), 2) as loader:
    print(*(process.pid for process in loader._processes), flush=True)
    time.sleep(60)
"""


def test_workers_end_within_a_second_of_their_parents_death(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "silent.png")
    command = [sys.executable, "-c", ORPHANS, str(tmp_path / "silent.png")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(workers) == 2
        assert all(map(is_running, workers))
        parent.kill()
    time.sleep(1)
    assert not any(map(is_running, workers))


def children() -> list[int]:
    return [child.pid for child in multiprocessing.active_children() if child.pid is not None]


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as status:
            return status.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
