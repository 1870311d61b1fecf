"""URLs in a resumed run: kept, checked for changes, downloaded only if changed."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.cli.batches import DEMO, Counts, batch, counts, grow, light


class Gallery(ThreadingHTTPServer):
    """Serves `pages` with an ETag each, and logs requests with their status."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.pages: dict[str, bytes] = {}
        self.log: list[tuple[str, int]] = []

    def take_log(self) -> list[tuple[str, int]]:
        """Requests since the last call."""
        log, self.log = sorted(self.log), []
        return log


class _Request(BaseHTTPRequestHandler):
    server: Gallery

    def do_GET(self) -> None:
        body = self.server.pages.get(self.path)
        tag = f'"{hash(body)}"'
        status = 404 if body is None else 304 if self.headers["If-None-Match"] == tag else 200
        self.server.log.append((self.path, status))
        self.send_response(status)
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(body or b"") if status == 200 else 0))
        self.end_headers()
        if status == 200 and body is not None:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Gallery]:
    grow(tmp_path / "made", ["a.png", "b.png", "c.png", "d.png"])
    with Gallery() as server:
        server.pages = {f"/{name}": (tmp_path / "made" / f"{name}.png").read_bytes() for name in "abc"}
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_only_what_has_changed_is_downloaded_again(gallery: Gallery, tmp_path: Path) -> None:
    urls = [f"http://127.0.0.1:{gallery.server_port}/{name}" for name in ("a", "b", "c", "missing")]
    arguments = (*urls, *DEMO, "--out", "out.jsonl")
    assert counts(batch(tmp_path, *arguments).stderr) == Counts(4, 0, 3, 0, 1)
    assert gallery.take_log() == [("/a", 200), ("/b", 200), ("/c", 200), ("/missing", 404)]

    assert counts(light(tmp_path, *arguments).stderr) == Counts(4, 3, 0, 0, 1)
    assert gallery.take_log() == []

    before = (tmp_path / "out.jsonl").read_bytes()
    gallery.pages["/b"] = (tmp_path / "made" / "d.png").read_bytes()
    assert counts(batch(tmp_path, *arguments, "--refresh-urls").stderr) == Counts(4, 2, 1, 0, 1)
    assert gallery.take_log() == [("/a", 304), ("/b", 200), ("/c", 304), ("/missing", 404)]
    after = (tmp_path / "out.jsonl").read_bytes()
    changed = [one != other for one, other in zip(before.splitlines(), after.splitlines(), strict=True)]
    assert changed == [False, True, False, False]

    del gallery.pages["/c"]
    assert counts(batch(tmp_path, *arguments, "--refresh-urls").stderr) == Counts(4, 2, 0, 0, 2)
    assert json.loads((tmp_path / "out.jsonl").read_text().splitlines()[2])["error"]["code"] == "http_404"


def test_a_signed_url_is_the_same_source_under_its_next_signature(gallery: Gallery, tmp_path: Path) -> None:
    """Fetched as given; nothing that the run leaves behind has the signature or the password."""

    def signed(name: str, signature: str) -> str:
        return f"http://me:pa55word@127.0.0.1:{gallery.server_port}{name}?X-Amz-Date=1&X-Amz-Signature={signature}"

    names = [f"/{name}?X-Amz-Date=1&X-Amz-Signature=s1gn" for name in ("a", "b")]
    gallery.pages |= dict(zip(names, (gallery.pages["/a"], gallery.pages["/b"]), strict=True))
    process = batch(
        tmp_path, signed("/a", "s1gn"), signed("/b", "s1gn"), signed("/no", "s1gn"), *DEMO, "--out", "o.csv"
    )
    assert counts(process.stderr) == Counts(3, 0, 2, 0, 1)
    assert [path for path, _ in gallery.take_log()] == [*names, "/no?X-Amz-Date=1&X-Amz-Signature=s1gn"]
    urls = [f"http://127.0.0.1:{gallery.server_port}/{name}" for name in ("a", "b", "no")]
    assert [line.split(",")[0] for line in (tmp_path / "o.csv").read_text().splitlines()[1:]] == urls
    for left in (process.stderr.encode(), *(path.read_bytes() for path in tmp_path.glob("o.csv*"))):
        assert b"s1gn" not in left and b"pa55word" not in left
    process = light(
        tmp_path, signed("/a", "n3xt"), signed("/b", "n3xt"), signed("/no", "n3xt"), *DEMO, "--out", "o.csv"
    )
    assert counts(process.stderr) == Counts(3, 2, 0, 0, 1)
    assert gallery.take_log() == []
