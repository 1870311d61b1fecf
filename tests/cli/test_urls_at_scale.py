"""Hundreds of URLs on a server that does everything wrong: each has its record, in order, and the run stays small."""

import io
import json
import random
import select
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.memory import LAUNCHER

pytestmark = pytest.mark.slow

MOST_AT_ONCE = 8
MOST_BYTES = 1_000_000
MOST_MEMORY = 100_000_000  # bytes at the peak, beyond the peak for as many small images
OPTIONS = ("-m", "demo", "--format", "jsonl", "-q", "--url-timeout", "3", "--url-max-bytes", str(MOST_BYTES))


class Server(ThreadingHTTPServer):
    """Counts requests by path, and the maximum number of requests at once."""

    request_queue_size = 128

    def __init__(self, elsewhere: str = "") -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.elsewhere = elsewhere
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.requests: Counter[str] = Counter()
        self.most_at_once = 0
        self._running: set[Request] = set()
        self._lock = threading.Lock()

    def begin(self, request: "Request") -> None:
        with self._lock:
            # A handler may not have noticed yet that its client has hung up.
            self._running = {other for other in self._running if not other.is_left()} | {request}
            self.most_at_once = max(self.most_at_once, len(self._running))
            self.requests[request.path] += 1

    def end(self, request: "Request") -> None:
        with self._lock:
            self._running.discard(request)

    def handle_error(self, *_: object) -> None:
        """Clients hang up on purpose here."""

    def __enter__(self) -> "Server":
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class Request(BaseHTTPRequestHandler):
    """One request for `/KIND/NUMBER/HOP`, handled as defined in `KINDS`."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.begin(self)
        time.sleep(0.01)
        _, kind, _, self.hop = self.path.split("/")
        self.is_first = self.server.requests[self.path] == 1
        KINDS[kind].respond(self)
        self.server.end(self)

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.head(status, Content_Length=str(len(body)), **headers)
        self.server.end(self)  # before the client gets it and sends the next request
        self.wfile.write(b"\r\n" + body)

    def head(self, status: int, **headers: str) -> None:
        """Send the status line and headers, without the final empty line."""
        lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()]
        self.wfile.write(f"HTTP/1.1 {status} -\r\n{''.join(lines)}".encode())

    def pour(self, **headers: str) -> None:
        """Send bytes until the client hangs up."""
        self.head(200, Connection="close", **headers)
        self.wfile.write(b"\r\n")
        while True:
            self.wfile.write(bytes(65_536))

    def drip(self) -> None:
        self.head(200, Connection="close")
        self.wfile.write(b"\r\n")
        while not self.is_left(1):
            self.wfile.write(b"x")

    def cut(self) -> None:
        self.head(200, Content_Length="99999")
        self.wfile.write(b"\r\n" + image("small"))
        self.close_connection = True

    def redirect(self, hop: int) -> None:
        self.reply(302, Location=f"{self.path.rpartition('/')[0]}/{hop}")

    def follow(self, hops: int) -> None:
        """Send a chain of `hops` redirects, then an image."""
        hop = int(self.hop)
        if hop < hops:
            self.redirect(hop + 1)
        else:
            self.reply(200, image("small"))

    def is_left(self, seconds: float = 0) -> bool:
        """True if the client hangs up within `seconds`; it sends nothing after its request."""
        try:
            return bool(select.select([self.connection], [], [], seconds)[0]) and not self.connection.recv(
                1, socket.MSG_PEEK | socket.MSG_DONTWAIT
            )
        except (OSError, ValueError):  # reset, or closed on this side too
            return True

    def log_message(self, *_: object) -> None:
        pass


SIDES = {"tiny": 8, "small": 150, "large": 550}


@cache
def image(size: str) -> bytes:
    """A PNG of noise, which nothing compresses."""
    noise = np.random.default_rng(3).integers(0, 256, (SIDES[size], SIDES[size], 3), np.uint8)
    Image.fromarray(noise).save(buffer := io.BytesIO(), "PNG")
    assert len(buffer.getvalue()) < MOST_BYTES
    return buffer.getvalue()


@dataclass(frozen=True)
class Kind:
    """A kind of URL: number of URLs, expected code, and the handler of its requests."""

    count: int
    code: str
    respond: Callable[[Request], object]


KINDS = {
    "tiny": Kind(25, "ok", lambda request: request.reply(200, image("tiny"))),
    "small": Kind(25, "ok", lambda request: request.reply(200, image("small"))),
    "large": Kind(25, "ok", lambda request: request.reply(200, image("large"))),
    "missing": Kind(20, "http_404", lambda request: request.reply(404, b"<html>")),
    "gone": Kind(20, "http_410", lambda request: request.reply(410)),
    "busy": Kind(
        16,
        "ok",
        lambda request: request.reply(429, Retry_After="1") if request.is_first else request.reply(200, image("tiny")),
    ),
    "shaky": Kind(
        16, "ok", lambda request: request.reply(500) if request.is_first else request.reply(200, image("tiny"))
    ),
    "down": Kind(12, "http_503", lambda request: request.reply(503)),
    "hanging": Kind(6, "timeout", lambda request: request.is_left(60)),
    "dripping": Kind(6, "timeout", Request.drip),
    "cut": Kind(12, "network", Request.cut),
    "circle": Kind(20, "network", lambda request: request.redirect(0)),
    "private": Kind(20, "network", lambda request: request.reply(302, Location=request.server.elsewhere)),
    "six": Kind(20, "network", lambda request: request.follow(6)),
    "five": Kind(20, "ok", lambda request: request.follow(5)),
    "endless": Kind(20, "too_large", Request.pour),
    "huge": Kind(20, "too_large", lambda request: request.pour(Content_Length="5000000000")),
    "text": Kind(20, "not_an_image", lambda request: request.reply(200, b"<html>No cats today.</html>")),
    "empty": Kind(20, "empty_file", lambda request: request.reply(200)),
}
REQUESTS = {"busy": 2, "shaky": 2, "down": 3, "cut": 3, "six": 6, "five": 6}
"""Number of requests per URL of a kind, if more than one."""


@dataclass(frozen=True)
class Run:
    """Result of `beit batch` over a list of URLs."""

    status: int
    records: list[dict[str, Any]]
    peak: int


def batch(folder: Path, urls: Iterable[str]) -> Run:
    command = [*LAUNCHER, sys.executable, "-m", "beitcli", "batch", "--files-from", "-", *OPTIONS]
    done = subprocess.run(command, cwd=folder, input="\n".join(urls).encode(), capture_output=True, check=False)
    *notices, peak = done.stderr.decode().splitlines()
    assert [notice for notice in notices if "images failed" not in notice] == []
    return Run(
        done.returncode,
        [json.loads(line) for line in done.stdout.splitlines()],
        int(peak) * (1 if sys.platform == "darwin" else 1024),
    )


def code_of(record: dict[str, Any]) -> str:
    return record["error"]["code"] if record["status"] == "error" else "ok"


def test_hundreds_of_urls_on_a_server_that_does_everything_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "*")
    kinds = [name for name, kind in KINDS.items() for _ in range(kind.count)]
    random.Random(5).shuffle(kinds)
    with Server() as elsewhere, Server(elsewhere.url) as server:
        urls = [f"{server.url}/{kind}/{number}/0" for number, kind in enumerate(kinds)]
        run = batch(tmp_path, urls)
        small = batch(tmp_path, [f"{server.url}/tiny/{number}/again" for number in range(len(urls))])
    assert [record["source"] for record in run.records] == urls
    assert [code_of(record) for record in run.records] == [KINDS[kind].code for kind in kinds]
    assert (run.status, small.status) == (3, 0)
    assert run.peak < small.peak + MOST_MEMORY
    assert server.most_at_once == MOST_AT_ONCE
    refused = [record["error"]["message"] for record in run.records if "/private/" in record["source"]]
    assert set(refused) == {"refused a redirect to 127.0.0.1, which is not a public address"}
    assert not elsewhere.requests
    for number, kind in enumerate(kinds):
        requests = sum(server.requests[f"/{kind}/{number}/{hop}"] for hop in range(7))
        # A transfer cut off while waiting for memory is tried again.
        assert requests == REQUESTS.get(kind, 1) or (kind == "cut" and requests > REQUESTS[kind])
