"""Checkpoints from a Hub on loopback: requests, the cache, and errors."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

CONFIG = json.dumps({"model_type": "beit", "id2label": {"0": "old", "1": "dog"}}).encode()
NEWER = json.dumps({"model_type": "beit", "id2label": {"0": "new", "1": "dog"}}).encode()
PROCESSOR = b'{"size": 32}'
SHARDS = {"one": b"1" * 40, "two": b"2" * 40}

Files = dict[str, bytes]


def sharded(kind: str) -> Files:
    """An index and its two parts; `kind` is `model.safetensors` or `pytorch_model.bin`."""
    stem, suffix = kind.split(".")
    parts = {f"{stem}-{part}.{suffix}": data for part, data in SHARDS.items()}
    weight_map = dict(zip(("a", "b", "c"), [*parts, *parts], strict=False))
    return {f"{kind}.index.json": json.dumps({"weight_map": weight_map}).encode(), **parts}


def repository(**weights: bytes) -> Files:
    return {"config.json": CONFIG, "preprocessor_config.json": PROCESSOR, **weights}


SAFETENSORS = repository(**{"model.safetensors": b"s" * 50})
BIN = repository(**{"pytorch_model.bin": b"b" * 50})
NO_PROCESSOR = {"config.json": CONFIG, "model.safetensors": b"s" * 50}


class FakeHub(ThreadingHTTPServer):
    """Serves `commits`: for each repository its commits, oldest first, each a mapping of file names to bytes.

    A revision is `main` (the newest commit), a tag `v0`, `v1`, … or a commit's hash. `refused` maps a repository to the
    status and error code of every response about it. `requests` has the method, revision and file of each request.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.commits: dict[str, list[Files]] = {}
        self.refused: dict[str, tuple[int, str]] = {}
        self.requests: list[str] = []
        self.tokens: set[str | None] = set()
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        if self._thread.is_alive():
            self.shutdown()
            self._thread.join()
            self.server_close()

    def respond(self, path: str) -> tuple[int, dict[str, str], bytes]:
        owner, name, _, revision, file = path.lstrip("/").split("/", 4)
        location = f"{owner}/{name}"
        if location in self.refused:
            status, code = self.refused[location]
            return status, {"X-Error-Code": code}, b""
        if location not in self.commits:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        commits = self.commits[location]
        numbers = {"main": len(commits) - 1}
        for number in range(len(commits)):
            numbers |= {f"v{number}": number, commit(location, number): number}
        if revision not in numbers:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        headers = {"X-Repo-Commit": commit(location, numbers[revision])}
        body = commits[numbers[revision]].get(file)
        if body is None:
            return 404, {"X-Error-Code": "EntryNotFound", **headers}, b""
        return 200, {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', **headers}, body


class _Request(BaseHTTPRequestHandler):
    server: FakeHub

    def do_GET(self) -> None:
        if "/resolve/" not in self.path:  # huggingface_hub's list of agents, for its User-Agent
            return self.send_error(404)
        self.server.requests.append(f"{self.command} {self.path.split('/', 4)[-1]}")
        self.server.tokens.add(self.headers["Authorization"])
        status, headers, body = self.server.respond(self.path)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
        return None

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


def commit(location: str, number: int) -> str:
    return hashlib.sha1(f"{location} {number}".encode()).hexdigest()


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        yield hub
        hub.stop()


SCRIPT = """
import json, os, sys
from beitcli.errors import BeitError
from beitcli.model.checkpoint import open_checkpoint
name, revision, refresh = json.loads(sys.argv[1])
try:
    checkpoint = open_checkpoint(name, revision, refresh)
    result = {"weights": checkpoint.weight_file(), "commit": checkpoint.repository.revision,
              "label": checkpoint.labels[0], "processor": checkpoint.processor}
    result["torch"] = "torch" in sys.modules
except BeitError as error:
    result = {"error": str(error), "hint": error.hint}
os.write(int(sys.argv[2]), json.dumps(result).encode())
"""


@pytest.fixture
def opened(hub: FakeHub, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`open_checkpoint` and `weight_file` in a process of its own, which must print nothing at all."""

    def run(name: str, revision: str | None = None, refresh: bool = False, **environment: str) -> dict[str, Any]:
        settings = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0", **environment}
        reading, writing = os.pipe()
        with open(reading, "rb") as pipe:
            process = subprocess.run(
                [sys.executable, "-c", SCRIPT, json.dumps([name, revision, refresh]), str(writing)],
                env={**os.environ, **settings},
                pass_fds=(writing,),
                capture_output=True,
                timeout=60,
            )
            os.close(writing)
            assert (process.returncode, process.stdout, process.stderr) == (0, b"", b"")
            return json.loads(pipe.read())

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "weights"),
    [
        pytest.param(SAFETENSORS, "model.safetensors", id="safetensors"),
        pytest.param(BIN, "pytorch_model.bin", id="bin"),
        pytest.param(SAFETENSORS | BIN, "model.safetensors", id="both"),
        pytest.param(repository(**sharded("model.safetensors")), "model.safetensors.index.json", id="sharded"),
        pytest.param(repository(**sharded("pytorch_model.bin")), "pytorch_model.bin.index.json", id="sharded bin"),
        pytest.param(NO_PROCESSOR, "model.safetensors", id="no processor"),
    ],
)
def test_cached_files_are_never_requested_again(
    files: Files, weights: str, hub: FakeHub, opened: Callable[..., dict[str, Any]]
) -> None:
    hub.commits["me/model"] = [files]
    first = opened("me/model")
    folder, name = os.path.split(first["weights"])
    assert (name, first["commit"], first["label"], first["torch"]) == (weights, commit("me/model", 0), "old", False)
    assert first["processor"] == (json.loads(PROCESSOR) if "preprocessor_config.json" in files else None)
    kept = {entry.name: Path(entry).read_bytes() for entry in os.scandir(folder)}
    assert kept.items() <= files.items()
    assert {"config.json", weights, *(name for name in files if "-" in name)} <= set(kept)

    hub.requests.clear()
    assert opened("me/model") == first
    assert hub.requests == []
    hub.stop()
    assert opened("me/model") == first
    assert opened("me/model", HF_HUB_OFFLINE="1") == first


def test_the_processor_in_the_layout_of_transformers_5_is_downloaded(
    hub: FakeHub, opened: Callable[..., dict[str, Any]]
) -> None:
    nested = json.dumps({"image_processor": {"size": 48}}).encode()
    hub.commits["me/model"] = [{**SAFETENSORS, "processor_config.json": nested}]
    first = opened("me/model")
    assert first["processor"] == {"size": 48}
    hub.stop()
    assert opened("me/model") == first


@pytest.mark.parametrize("files", [BIN, repository(**sharded("model.safetensors"))], ids=["bin", "sharded"])
def test_a_cache_filled_by_other_tools_suffices(
    files: Files, hub: FakeHub, opened: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    cache = tmp_path / "hf" / "hub" / "models--me--model"
    snapshot = cache / "snapshots" / commit("me/model", 0)
    snapshot.mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit("me/model", 0))
    for name, data in files.items():
        (snapshot / name).write_bytes(data)
    found = opened("me/model", HF_HUB_OFFLINE="1")
    assert Path(found["weights"]).parent == snapshot
    assert opened("me/model") == found
    assert hub.requests == []


def test_refresh_updates_the_whole_checkpoint(hub: FakeHub, opened: Callable[..., dict[str, Any]]) -> None:
    hub.commits["me/model"] = [SAFETENSORS]
    opened("me/model")
    newer = {**SAFETENSORS, "config.json": NEWER, "model.safetensors": b"n" * 60}
    hub.commits["me/model"].append(newer)
    assert opened("me/model")["label"] == "old"
    refreshed = opened("me/model", refresh=True)
    assert (refreshed["label"], refreshed["commit"]) == ("new", commit("me/model", 1))
    assert Path(refreshed["weights"]).read_bytes() == b"n" * 60
    hub.stop()
    assert opened("me/model") == refreshed
    assert opened("me/model", commit("me/model", 0))["label"] == "old"


def test_refresh_of_an_unchanged_checkpoint_downloads_nothing(
    hub: FakeHub, opened: Callable[..., dict[str, Any]]
) -> None:
    hub.commits["me/model"] = [SAFETENSORS]
    first = opened("me/model")
    hub.requests.clear()
    assert opened("me/model", refresh=True) == first
    assert {request.split()[0] for request in hub.requests} == {"HEAD"}


def test_refresh_without_a_hub_is_an_error(hub: FakeHub, opened: Callable[..., dict[str, Any]]) -> None:
    hub.commits["me/model"] = [SAFETENSORS]
    opened("me/model")
    hub.stop()
    assert "cannot be reached" in opened("me/model", refresh=True)["error"]


@pytest.mark.parametrize("revision", ["v0", commit("me/model", 0)], ids=["tag", "commit"])
def test_a_revision_is_a_tag_or_a_commit(revision: str, hub: FakeHub, opened: Callable[..., dict[str, Any]]) -> None:
    hub.commits["me/model"] = [SAFETENSORS, {**SAFETENSORS, "config.json": NEWER}]
    tagged = opened("me/model", revision)
    assert (tagged["label"], tagged["commit"]) == ("old", commit("me/model", 0))
    assert opened("me/model")["label"] == "new"
    hub.stop()
    assert opened("me/model", revision) == tagged


@pytest.mark.parametrize(
    ("weights", "missing"),
    [
        pytest.param({"model.safetensors": b"s" * 50}, "model.safetensors", id="weights"),
        pytest.param(sharded("model.safetensors"), "model-two.safetensors", id="one part"),
    ],
)
def test_only_missing_files_are_downloaded_and_at_their_commit(
    weights: Files, missing: str, hub: FakeHub, opened: Callable[..., dict[str, Any]]
) -> None:
    hub.commits["me/model"] = [repository(**weights)]
    first = opened("me/model")
    link = Path(first["weights"]).parent / missing
    link.resolve().unlink()
    link.unlink()
    hub.commits["me/model"].append({**repository(**weights), "config.json": NEWER})
    hub.requests.clear()
    assert opened("me/model") == first
    downloaded = [request for request in hub.requests if request.startswith("GET")]
    assert downloaded == [f"GET {commit('me/model', 0)}/{missing}"]
    assert not any("config.json" in request for request in hub.requests)


REFUSALS = [
    pytest.param("me/nothing", None, "no model `me/nothing`", "`beit models`", id="no such repository"),
    pytest.param("microsoft/beit-large-patch16-385", None, "no model", "large", id="near a known one"),
    pytest.param("me/model", "v7", "no such revision", "`revision=`", id="no such revision"),
    pytest.param("me/model", "0" * 40, "no such revision", "`revision=`", id="no such commit"),
    pytest.param("me/gated", None, "gated", "HF_TOKEN", id="gated"),
    pytest.param("me/forbidden", None, "gated", "HF_TOKEN", id="gated, signed in"),
    pytest.param("me/private", None, "private", "", id="private"),
    pytest.param("me/broken", None, "downloading `me/broken` failed", "`model=demo`", id="server error"),
    pytest.param("me/empty", None, "no config.json", "model.safetensors", id="no config"),
    pytest.param("me/bare", None, "no weights", "pytorch_model.bin", id="no weights"),
]


@pytest.mark.parametrize(("name", "revision", "message", "hint"), REFUSALS)
def test_errors_of_the_hub(
    name: str, revision: str | None, message: str, hint: str | None, hub: FakeHub, opened: Callable[..., dict[str, Any]]
) -> None:
    hub.commits = {"me/model": [SAFETENSORS], "me/empty": [{}], "me/bare": [repository()]}
    hub.refused = {
        "me/gated": (401, "GatedRepo"),
        "me/forbidden": (403, "GatedRepo"),
        "me/private": (401, "RepoNotFound"),
        "me/broken": (500, ""),
    }
    result = opened(name, revision)
    assert message in result["error"]
    assert "\n" not in result["error"]
    assert result["hint"] is None if hint is None else hint in result["hint"]


def test_a_disk_that_takes_no_download_is_named(
    hub: FakeHub, opened: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """As where it is full, or has no locks."""
    hub.commits["me/model"] = [SAFETENSORS]
    (tmp_path / "file").touch()
    result = opened("me/model", HF_HOME=str(tmp_path / "file"))
    assert "downloading `me/model` failed" in result["error"]
    assert result["hint"] == f"downloads go to `{tmp_path}/file/hub`: make room there, or set HF_HOME to another disk"


@pytest.mark.parametrize("offline", ["0", "1"], ids=["no server", "HF_HUB_OFFLINE"])
@pytest.mark.parametrize("name", ["large-384", "me/model"])
def test_not_cached_and_out_of_reach(
    name: str, offline: str, hub: FakeHub, opened: Callable[..., dict[str, Any]]
) -> None:
    if offline == "0":
        hub.stop()
    result = opened(name, HF_HUB_OFFLINE=offline)
    assert "not cached and the Hub cannot be reached" in result["error"]
    assert "`model=demo`" in result["hint"]
    assert hub.requests == []


@pytest.mark.parametrize(
    ("settings", "sent"), [({"HF_TOKEN": "hf_secret"}, "Bearer hf_secret"), ({}, None)], ids=["token", "none"]
)
def test_the_token_is_sent(
    settings: dict[str, str], sent: str | None, hub: FakeHub, opened: Callable[..., dict[str, Any]]
) -> None:
    hub.commits["me/model"] = [BIN]
    opened("me/model", **settings)
    assert hub.tokens == {sent}
    assert {request.split()[0] for request in hub.requests} == {"HEAD", "GET"}
