"""Workers as actors of a Ray cluster, one for each of its GPUs or, without any, for the cores of each node.

An actor only passes messages on, to and from a worker in a process of its own. Ray schedules actors and notices their
end; nothing else here depends on it.
"""

import atexit
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from multiprocessing.connection import Connection
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import beitcli
from beitcli.errors import BeitError, first_line
from beitcli.workers.checkpoints import put
from beitcli.workers.messages import Place

log = logging.getLogger(__name__)

_ROOT = os.path.dirname(beitcli.__path__[0])

_START = """
import sys
sys.path.append(sys.argv[1])
from multiprocessing.connection import Connection
from beitcli.workers.worker import main
main(Connection(int(sys.argv[2])))
"""
"""A worker, in whose folder no module hides one of Python's."""

_CONNECTING = 5.0
"""Seconds that the cluster's head has to accept a connection: Ray itself would go on trying for minutes."""

_SENDING, _RECEIVING = {"concurrency_group": "sending"}, {"concurrency_group": "receiving"}

_PATIENCE = 30.0
"""Seconds that a cluster may be without its head, as when that is started again."""

_LOOK = 2.0
"""Seconds between two looks at the cluster's nodes."""

_LEAVING = 10.0
"""Seconds that leaving the cluster may take."""


class Relay:
    """The actor: a worker's process on its node, and the messages to and from it."""

    def __init__(self, place: Place) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._connection = Connection(ours.detach())
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _START, _ROOT, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=os.environ | {"OMP_NUM_THREADS": str(place.cores), "HF_HUB_OFFLINE": "1"},
            )

    def send(self, message: bytes) -> None:
        """Send a message; where the worker is gone, `receive` says so."""
        with suppress(OSError):
            self._connection.send_bytes(message)

    def install(self, files: Mapping[str, bytes], folder: str) -> None:
        """Put files into a folder of this node, unless another worker has."""
        put(files, folder)

    def receive(self) -> list[bytes | str]:
        """The messages that are there, at least one; text is the reason for which the worker has ended."""
        received: list[bytes | str] = []
        try:
            received.append(self._connection.recv_bytes())
            while self._connection.poll():
                received.append(self._connection.recv_bytes())
        except (EOFError, OSError):
            status = self._process.wait()
            received.append(signal.Signals(-status).name if status < 0 else f"exit status {status}")
        return received


class RayWorkers:
    """The engine of `engine=ray`: on the cluster at `address`, or on this machine by a Ray of its own.

    `device` is that of every worker; `auto` are GPUs, if a node has some.
    """

    is_here = False

    def __init__(self, address: str | None, device: str) -> None:
        self._address = address or os.environ.get("RAY_ADDRESS") or "local"
        self._device = device.partition(":")[0]
        self._actors: dict[int, Any] = {}
        self._present: set[int] = set()
        self._received: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        self._started = 0
        self._heard = 0.0
        self._head: _Head | None = None
        self._files: Any = None

    def places(self) -> Sequence[Place]:
        """The places of the nodes that are there.

        Raises BeitError where the cluster cannot be reached, or its head and all workers have been silent for long.
        """
        head = self._connected()
        if time.monotonic() - max(head.heard, self._heard) > _PATIENCE:
            message = f"the head of the Ray cluster at `address={self._address}` has gone"
            raise BeitError(message, "once it is back the same command goes on")
        return tuple(_places(head.nodes, self._device))

    def start(self, place: Place) -> int:
        """Start a worker, and give its key."""
        self._started += 1
        self._present.add(self._started)
        self._connected().do(partial(self._create, self._started, place))
        return self._started

    def send(self, key: int, message: bytes) -> None:
        """Send a message; where the worker is gone, `wait` says so."""
        self._actors[key].send.options(**_SENDING).remote(message)

    def wait(self, seconds: float) -> list[tuple[int, bytes | str]]:
        """Messages that came within so many seconds, or the reason for which a worker ended."""
        events: list[tuple[int, bytes | str]] = []
        with suppress(queue.Empty):
            events += self._events(*self._received.get(timeout=seconds))
            while True:
                events += self._events(*self._received.get_nowait())
        return events

    def drop(self, key: int) -> None:
        """Forget a worker, and kill it."""
        self._present.remove(key)
        self._connected().do(partial(self._kill, key))

    def install(self, key: int, read: Callable[[], Mapping[str, bytes]], folder: str) -> None:
        """Put files into a folder on the worker's node, to which they are sent once."""
        self._files = self._files or ray.put(read())
        self._actors[key].install.options(**_SENDING).remote(self._files, folder)

    def excuse(self) -> str:
        """The resources that are wanted, and those that the cluster has."""
        there = ray.cluster_resources()
        has = ", ".join(f"{there.get(kind, 0):g} {kind}s" for kind in ("CPU", "GPU"))
        if not self.places():
            wanted = "a GPU" if self._device == "cuda" else "a core"
            return f"the cluster ({has}) has no node with {wanted}"
        free = ray.available_resources()
        return f"of the cluster's {has}, {free.get('CPU', 0):g} and {free.get('GPU', 0):g} are free"

    def close(self) -> None:
        """Kill all workers, and leave the cluster."""
        if self._head:
            for key in list(self._present):
                self.drop(key)
            self._head.leave()
            self._head = None

    def _connected(self) -> "_Head":
        if self._head:
            return self._head
        _check_reachable(self._address)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if not log.isEnabledFor(logging.DEBUG):
            logging.getLogger("ray").setLevel(logging.CRITICAL)  # it would print warnings and advice
        try:
            with _own_signals(), _silent_errors():
                ray.init(
                    self._address,
                    log_to_driver=False,
                    configure_logging=False,
                    include_dashboard=False if self._address == "local" else None,
                )
        except (RayError, RuntimeError, ConnectionError, ValueError, OSError) as error:
            hint = "for a cluster with tokens set RAY_AUTH_MODE=token" if "uthenticat" in str(error) else None
            raise BeitError(f"no Ray cluster at `address={self._address}`: {first_line(error)}", hint) from error
        self._head = _Head()
        return self._head

    def _create(self, key: int, place: Place) -> None:
        needs = {"num_gpus": 1, "num_cpus": 0} if place.device == "cuda" else {"num_cpus": place.cores}
        on_its_node = NodeAffinitySchedulingStrategy(place.node, False)
        self._actors[key] = _actor_class().options(**needs, scheduling_strategy=on_its_node).remote(place)
        self._listen(key)

    def _kill(self, key: int) -> None:
        if key in self._actors:  # else it could not be created
            ray.kill(self._actors.pop(key))

    def _listen(self, key: int) -> None:
        future = self._actors[key].receive.options(**_RECEIVING).remote().future()
        future.add_done_callback(lambda done: self._received.put((key, done)))

    def _events(self, key: int, done: Any) -> Iterator[tuple[int, bytes | str]]:
        if key not in self._present:
            return
        error = done.exception()
        if error is not None:
            yield key, _reason(error)
            return
        self._heard = time.monotonic()
        self._listen(key)
        for message in done.result():
            yield key, message


class _Head:
    """The cluster's head, asked in a thread: where it is gone Ray waits for it a minute, then ends the process."""

    def __init__(self) -> None:
        self.nodes: Sequence[Mapping[str, Any]] = ray.nodes()
        self.heard = time.monotonic()
        self._tasks: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def do(self, task: Callable[[], object]) -> None:
        """Have something done, in order, and once."""
        self._tasks.put(task)

    def leave(self) -> None:
        """Leave the cluster when all is done; without its head only this program does, not Ray."""
        self._tasks.put(ray.shutdown)
        self._tasks.put(None)
        self._thread.join(_LEAVING)
        if self._thread.is_alive():
            atexit.unregister(ray.shutdown)  # it would wait, too

    def _run(self) -> None:
        while True:
            try:
                task = self._tasks.get(timeout=_LOOK)
            except queue.Empty:
                task = self._look
            if task is None:
                return
            with suppress(RayError):
                task()

    def _look(self) -> None:
        self.nodes = ray.nodes()
        self.heard = time.monotonic()


@cache
def _actor_class() -> Any:
    # one thread each: messages stay in order, and sending does not wait for receiving
    groups = {group["concurrency_group"]: 1 for group in (_SENDING, _RECEIVING)}
    return ray.remote(max_restarts=0, max_task_retries=0, concurrency_groups=groups)(Relay)


def _places(nodes: Sequence[Mapping[str, Any]], device: str) -> Iterator[Place]:
    """A place for each GPU of the nodes, or where there is none, or none is wanted, for the cores of each node."""
    alive = [node for node in nodes if node["Alive"]]
    has_gpus = any(node["Resources"].get("GPU", 0) >= 1 for node in alive)
    for node in alive:
        cores, gpus = (int(node["Resources"].get(kind, 0)) for kind in ("CPU", "GPU"))
        name = f"node {node['NodeManagerAddress']}"
        if device == "cuda" or (device == "auto" and has_gpus):
            for number in range(gpus):
                yield Place(f"{name}, GPU {number + 1}", "cuda", max(1, cores // gpus), (), node["NodeID"], number)
        elif cores:
            yield Place(name, "cpu", cores, (), node["NodeID"])


def _check_reachable(address: str) -> None:
    """Raise BeitError where nothing listens at the address of a cluster."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        return  # `auto`, `local`: Ray itself finds it at once, or does not
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECTING).close()
    except OSError as error:
        raise BeitError(f"no Ray cluster at `address={address}`: {error.strerror or error}") from error


def _reason(error: BaseException) -> str:
    """The reason for an actor's end, in a few words. Raises BeitError where it can be nowhere."""
    if "ModuleNotFoundError" in str(error) or "ImportError" in str(error):
        return "beit is not installed there, or in another version"
    return first_line(error).rstrip(".").replace("The actor", "its actor", 1)


@contextmanager
def _silent_errors() -> Iterator[None]:
    """Drop what Ray's own code writes to descriptor 2, unless messages are verbose: its exception says it too."""
    if log.isEnabledFor(logging.DEBUG):
        yield
        return
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the handlers of signals: Ray would set its own."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)
    before = [signal.getsignal(number) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
