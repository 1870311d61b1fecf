"""A Ray cluster on loopback addresses: a head without cores, and nodes of one core each."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tests.conftest import ROOT
from tests.workers.conftest import descendants, kill

RUN = ("--dtype", "fp32", "--out", "out.csv")
"""Options of a run on a cluster."""

_READY = 60.0

_SOON_DEAD = {"RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "3"}
"""The head takes a node for dead after three seconds instead of fifteen."""


def end(process: "subprocess.Popen[str]") -> list[str]:
    """The lines on stderr of a run, once it has ended."""
    stderr = process.communicate(timeout=100)[1]
    assert "Traceback" not in stderr
    return stderr.splitlines()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Cluster:
    """Nodes by the last number of their address, 127.0.0.N; the head is 4."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # sockets below it have long names
        self._nodes: dict[int, subprocess.Popen[bytes]] = {}
        port = free_port()
        self.address = f"127.0.0.4:{port}"
        ports = [f"--port={port}", f"--dashboard-port={free_port()}"]
        self._start(4, _SOON_DEAD, "--head", "--num-cpus=0", "--include-dashboard=false", *ports)
        self._wait_for(1)

    def start(self, *numbers: int, **environment: str) -> None:
        """Start these nodes, and wait for them."""
        before = len(self._nodes)
        for number in numbers:
            self._start(number, environment, f"--address={self.address}", "--num-cpus=1")
        self._wait_for(before + len(numbers))

    def lose(self, number: int) -> None:
        """End a node as a machine that loses power, and wait until the head knows: no worker is placed there again."""
        known = self._known_dead()
        self.kill(number)
        until = time.monotonic() + _READY
        while self._known_dead() == known:
            assert time.monotonic() < until
            time.sleep(0.1)

    def kill(self, number: int) -> None:
        """End a node as a machine that loses power."""
        node = self._nodes.pop(number)
        below = descendants(node.pid)
        kill(node.pid)
        for process in below:
            kill(process)
        node.wait()

    def below(self, number: int) -> list[int]:
        """The processes of a node."""
        return descendants(self._nodes[number].pid)

    def workers(self, number: int) -> list[list[int]]:
        """The processes of each worker of a node: its actor, its own, and its decoders."""
        found = []
        for each in self.below(number):
            title = Path(f"/proc/{each}/cmdline")
            if title.exists() and b"ray::Relay" in title.read_bytes():
                found.append([each, *descendants(each)])
        return found

    def end(self) -> None:
        for number in list(self._nodes):
            self.kill(number)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _known_dead(self) -> int:
        [log] = Path(self._folder, "4").glob("session_2*/logs/gcs_server.out")
        return log.read_text(errors="replace").count("Node is dead because")

    def _start(self, number: int, environment: Mapping[str, str], *options: str) -> None:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", *options]
        command += [f"--node-ip-address=127.0.0.{number}", "--object-store-memory=80000000"]
        command += [f"--temp-dir={self._folder}/{number}", f"--dashboard-agent-listen-port={free_port()}"]
        with open(f"{self._folder}/{number}.log", "wb") as log:
            self._nodes[number] = subprocess.Popen(
                command,
                env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled", **environment},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _wait_for(self, nodes: int) -> None:
        """Wait for so many nodes that say they have started."""
        until = time.monotonic() + _READY
        while True:
            logs = [Path(self._folder, f"{number}.log") for number in self._nodes]
            with suppress(OSError):
                if sum("Ray runtime started" in log.read_text() for log in logs) >= nodes:
                    return
            assert time.monotonic() < until, [log.read_text() for log in logs]
            assert all(node.poll() is None for node in self._nodes.values()), [log.read_text() for log in logs]
            time.sleep(0.1)
