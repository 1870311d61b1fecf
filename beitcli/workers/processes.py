"""Workers as processes of this machine, one for each device."""

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait

from beitcli.inputs.worker import folder_errors, folder_for_sockets
from beitcli.model.cpu.cores import usable_cores
from beitcli.workers.messages import Place

_TEMPLATE = "beitcli.workers.template"

_CLOSING = 3.0
"""Seconds that a process has to clean up, before it is killed."""


class Processes:
    """The engine of `devices=`: one process for each device."""

    is_here = True

    def __init__(self, devices: Sequence[str]) -> None:
        self._places = tuple(_places(devices))
        self._workers: dict[int, _WorkerProcess] = {}
        self._started = 0

    def places(self) -> Sequence[Place]:
        """A place for each device."""
        return self._places

    def start(self, place: Place) -> int:
        """Start a worker, and give its key."""
        self._started += 1
        self._workers[self._started] = _WorkerProcess(place)
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
        self._workers.pop(key).end(0)

    def install(self, key: int, read: Callable[[], Mapping[str, bytes]], folder: str) -> None:
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


class _WorkerProcess:
    """A worker in a process of its own, which ends when the connection does.

    It is forked from a process that has imported all it needs, which is most of a worker's start.
    """

    def __init__(self, place: Place) -> None:
        context = multiprocessing.get_context("forkserver")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_run, args=(theirs, place.pinned))
        with theirs:
            _ensure_template(place.cores)
            self._process.start()

    def reason(self) -> str:
        """The signal or the exit status that ended the process."""
        self._process.join(_CLOSING)
        status = self._process.exitcode
        if status is None:
            return "no response"
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"

    def end(self, seconds: float) -> None:
        """Wait for it to end by itself, its connection being closed, and kill it then."""
        self.connection.close()
        self._process.join(seconds)
        self._process.kill()
        self._process.join()


def _run(connection: Connection, pinned: Sequence[int]) -> None:
    from beitcli.workers.worker import main

    if pinned:
        with suppress(OSError):  # cores that are not ours any more
            os.sched_setaffinity(0, pinned)
    main(connection)


def _ensure_template(cores: int) -> None:
    """Start the process from which workers are forked, unless it is there."""
    multiprocessing.set_forkserver_preload([_TEMPLATE])
    usual = tempfile.tempdir
    try:
        with folder_errors(), _environment(OMP_NUM_THREADS=str(cores), HF_HUB_OFFLINE="1"):
            tempfile.tempdir = folder_for_sockets()
            forkserver.ensure_running()
    finally:
        tempfile.tempdir = usual


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """The environment of a process that is started inside."""
    before = os.environ.copy()
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _places(devices: Sequence[str]) -> Iterator[Place]:
    """A place for each device, with its share of the cores; a model on a CPU is bound to its share."""
    count = len(devices)
    share = max(1, usable_cores() // count)
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    for number, device in enumerate(devices):
        own = cores[number * len(cores) // count : (number + 1) * len(cores) // count][:share]
        pinned = tuple(own) if device == "cpu" else ()
        yield Place(f"worker {number + 1} ({device})", device, share, pinned, number=number)
