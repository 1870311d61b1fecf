"""Workers as processes of this machine, one for each device."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait

import beitcli
from beitcli.model.cpu.cores import usable_cores
from beitcli.workers.messages import Place

_ROOT = os.path.dirname(beitcli.__path__[0])

_START = """
import sys
sys.path.append(sys.argv.pop(1))
from beitcli.workers.worker import main
main(int(sys.argv[1]))
"""

_CLOSING = 3.0
"""Seconds that a process has to clean up, before it is killed."""


class WorkerProcess:
    """A worker in a process of its own, which ends when the connection does."""

    def __init__(self, place: Place) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.connection = Connection(ours.detach())
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _START, _ROOT, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # only the run's own process writes there
                env=os.environ | {"OMP_NUM_THREADS": str(place.cores), "HF_HUB_OFFLINE": "1"},
            )
        if place.pinned and hasattr(os, "sched_setaffinity"):
            with suppress(OSError):  # cores that are not ours
                os.sched_setaffinity(self._process.pid, place.pinned)

    def reason(self) -> str:
        """The signal or the exit status that ended the process."""
        try:
            status = self._process.wait(_CLOSING)
        except subprocess.TimeoutExpired:
            return "no answer"
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"

    def kill(self) -> None:
        """Kill it at once."""
        self.connection.close()
        self._process.kill()
        self._process.wait()

    def end(self, seconds: float) -> None:
        """Wait for it to end by itself, its connection being closed, and kill it then."""
        self.connection.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        self._process.kill()
        self._process.wait()


class Processes:
    """The engine of `devices=`: one process for each device."""

    is_here = True

    def __init__(self, devices: Sequence[str]) -> None:
        self._places = tuple(_places(devices))
        self._workers: dict[int, WorkerProcess] = {}
        self._started = 0

    def open(self) -> None:
        """Nothing: a process is started when it is wanted."""

    def places(self) -> Sequence[Place]:
        """A place for each device."""
        return self._places

    def start(self, place: Place) -> int:
        """Start a worker, and give its key."""
        self._started += 1
        self._workers[self._started] = WorkerProcess(place)
        return self._started

    def send(self, key: int, message: bytes) -> None:
        """Send a message; where the worker is gone, `wait` says so."""
        with suppress(OSError):
            self._workers[key].connection.send_bytes(message)

    def wait(self, seconds: float) -> list[tuple[int, bytes | str]]:
        """Messages that came within so many seconds, or the reason for which a worker ended."""
        by_connection = {worker.connection: key for key, worker in self._workers.items()}
        events: list[tuple[int, bytes | str]] = []
        for ready in wait(list(by_connection), seconds):
            key = by_connection[ready]  # type: ignore[index]
            try:
                events.append((key, ready.recv_bytes()))  # type: ignore[union-attr]
            except (EOFError, OSError):
                events.append((key, self._workers[key].reason()))
        return events

    def drop(self, key: int) -> None:
        """Forget a worker, and kill it."""
        self._workers.pop(key).kill()

    def install(self, key: int, files: Mapping[str, bytes], folder: str) -> None:
        """Never called: this machine has the files."""
        raise NotImplementedError

    def excuse(self) -> str:
        """The reason for which no worker may be ready."""
        return "its processes do not start"

    def close(self) -> None:
        """End all workers."""
        workers, self._workers = list(self._workers.values()), {}
        for worker in workers:
            worker.connection.close()
        for worker in workers:
            worker.end(_CLOSING)


def _places(devices: Sequence[str]) -> Iterator[Place]:
    """A place for each device, with its share of the cores; a model on a CPU is bound to its share."""
    count = len(devices)
    share = max(1, usable_cores() // count)
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    for number, device in enumerate(devices):
        own = cores[number * len(cores) // count : (number + 1) * len(cores) // count][:share]
        pinned = tuple(own) if device == "cpu" else ()
        yield Place(f"worker {number + 1} ({device})", device, share, pinned, number=number)
