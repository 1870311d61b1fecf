"""URLs become bytes or coded failures, in order, within their limits; against real servers on the loopback."""

import gzip
import io
import itertools
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from beitcli import __version__
from beitcli.errors import BeitError
from beitcli.inputs import fetch as module
from beitcli.inputs.fetch import FetchLimits, fetch
from beitcli.inputs.http import is_public
from beitcli.records import STDIN, Failure, Fetched, Identity, Source

LIMITS = FetchLimits(seconds=0.8, max_bytes=100_000)


class Request(BaseHTTPRequestHandler):
    """One request to a `Server`, which chooses the response."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_GET(self) -> None:
        with self.server.lock:
            number = len(self.server.requests)
            self.server.requests.append((self.path, dict(self.headers)))
        self.server.responses[min(number, len(self.server.responses) - 1)](self)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Gives each response once, in order, then always the last; records the requests."""

    connections = 0

    request_queue_size = 128

    def __init__(self, responses: tuple["Response", ...]) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.responses = responses
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.lock = threading.Lock()
        self.ended = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def get_request(self) -> tuple[socket.socket, object]:
        self.connections += 1
        return super().get_request()

    def shutdown_request(self, request: object) -> None:
        super().shutdown_request(request)  # type: ignore[arg-type]
        self.connections -= 1

    def handle_error(self, *_: object) -> None:
        """Ignore clients that hang up, as many of these tests do."""

    def __enter__(self) -> "Server":
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.shutdown()
        self.server_close()


Response = Callable[[Request], None]


def reply(status: int = 200, body: bytes = b"", /, **headers: str) -> Response:
    def respond(request: Request) -> None:
        request.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(body)

    return respond


def after(seconds: float, respond: Response) -> Response:
    def late(request: Request) -> None:
        request.server.ended.wait(seconds)
        respond(request)

    return late


def drip(head: bytes) -> Response:
    def respond(request: Request) -> None:
        request.wfile.write(head)
        while not request.server.ended.wait(0.05):
            request.wfile.write(b"x")

    return respond


def raw(data: bytes) -> Response:
    def respond(request: Request) -> None:
        request.wfile.write(data)
        request.close_connection = True

    return respond


def chain(request: Request) -> None:
    """Redirects `/0` to `/1`, that to `/2` and so on; `/5` is the fifth and last."""
    number = int(request.path[1:])
    (reply(200, b"cat") if number == 5 else reply(302, Location=f"/{number + 1}"))(request)


def endless(request: Request) -> None:
    reply(302, Location=f"{request.path}x")(request)


CAT = reply(200, b"cat")
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "BACK_OFF", 0.02)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "*")
    yield
    assert "beit-fetch" not in [thread.name for thread in threading.enumerate()]


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    with ExitStack() as stack:
        yield lambda *responses: stack.enter_context(Server(responses))


def url(location: str) -> Source:
    return Source(location, "url")


def fetched(found: Iterable[Source | Failure], limits: FetchLimits = LIMITS) -> list[Source | Fetched | Failure]:
    return list(fetch(found, limits, lambda _: None))


def outcome(location: str, limits: FetchLimits = LIMITS) -> Any:
    """The bytes, or the failure's code and message."""
    (item,) = fetched([url(location)], limits)
    assert not isinstance(item, Source)
    assert item.source == url(location)
    return item.data if isinstance(item, Fetched) else (item.code, item.message)


GOOD = [
    pytest.param([CAT], 1, id="200"),
    pytest.param([reply(201, b"cat")], 1, id="201"),
    pytest.param([reply(200, gzip.compress(b"cat"), Content_Encoding="gzip")], 1, id="gzip unasked"),
    pytest.param([raw(HEAD + b"\r\ncat")], 1, id="ended by the connection"),
    pytest.param([raw(CHUNKED + b"1\r\nc\r\n2\r\nat\r\n0\r\n\r\n")], 1, id="chunked"),
    pytest.param([reply(429, Retry_After="0"), CAT], 2, id="429 then 200"),
    pytest.param([reply(500), CAT], 2, id="500 then 200"),
    pytest.param([reply(503, Retry_After="soon"), CAT], 2, id="503 with a senseless Retry-After then 200"),
    pytest.param([reply(503, Retry_After="Sun, 06 Nov 1994 08:49:37 GMT"), CAT], 2, id="503 until a date that is past"),
    pytest.param([raw(b""), raw(HEAD + b"Content-Length: 3\r\n\r\nc"), CAT], 3, id="broken twice then 200"),
    pytest.param([reply(302, Location="/there"), CAT], 2, id="redirect"),
    pytest.param([chain], 6, id="five redirects"),
]


@pytest.mark.parametrize(("responses", "requests"), GOOD)
def test_good(serve: Callable[..., Server], responses: list[Response], requests: int) -> None:
    server = serve(*responses)
    assert outcome(f"{server.url}/0") == b"cat"
    assert len(server.requests) == requests


BAD = [
    pytest.param([reply(404)], 1, "http_404", "the server answered 404 Not Found", id="404"),
    pytest.param([reply(408)], 1, "http_408", "the server answered 408 Request Timeout", id="408"),
    pytest.param([reply(304)], 1, "http_304", "the server answered 304 Not Modified", id="304"),
    pytest.param([reply(999)], 1, "http_999", "the server answered 999", id="999"),
    pytest.param([reply(500)], 3, "http_500", "the server answered 500 Internal Server Error", id="500 for ever"),
    pytest.param([reply(429, Retry_After="0")], 3, "http_429", "the server answered 429 Too Many", id="429 for ever"),
    pytest.param([reply(429, Retry_After="9")], 1, "http_429", "the server answered 429 Too Many", id="429 too long"),
    pytest.param(
        [reply(503, Retry_After="Wed, 21 Oct 2499 07:28:00 GMT")],
        1,
        "http_503",
        "the server answered 503",
        id="503 date",
    ),
    pytest.param([after(9, CAT)], 1, "timeout", "no answer within 0.8 s (--url-timeout)", id="hangs"),
    pytest.param([drip(HEAD + b"\r\n")], 1, "timeout", "no answer within 0.8 s (--url-timeout)", id="body drips"),
    pytest.param([drip(HEAD + b"X: ")], 1, "timeout", "no answer within 0.8 s (--url-timeout)", id="head drips"),
    pytest.param([after(0.3, reply(500))], 3, "timeout", "no answer within 0.8 s", id="tries take too long together"),
    pytest.param([raw(b"")], 3, "network", "the transfer broke off: Server disconnected", id="no response"),
    pytest.param([raw(b"SSH-2.0\r\n\r\n")], 3, "network", "the transfer broke off: illegal status line", id="not HTTP"),
    pytest.param(
        [raw(HEAD + b"Content-Length: 9\r\n\r\ncat")],
        3,
        "network",
        "the transfer broke off: peer closed",
        id="short body",
    ),
    pytest.param(
        [raw(HEAD + b"no header" + bytes(9999) + b"\r\n\r\n")],
        3,
        "network",
        "the transfer broke off: illegal header",
        id="talks on and on",
    ),
    pytest.param([raw(CHUNKED + b"9\r\ncat")], 3, "network", "the transfer broke off: peer closed", id="short chunk"),
    pytest.param([reply(200, b"cat", Content_Encoding="gzip")], 3, "network", "the transfer broke off", id="not gzip"),
    pytest.param(
        [raw(HEAD + b"Content-Length: 100001\r\n\r\n")],
        1,
        "too_large",
        "more than 100,000 bytes (--url-max-bytes)",
        id="declared too large",
    ),
    pytest.param([drip(CHUNKED + b"fffff\r\n" + bytes(100_001))], 1, "too_large", "more than 100,000", id="too large"),
    pytest.param(
        [reply(200, gzip.compress(bytes(10**7)), Content_Encoding="gzip")], 1, "too_large", "more than", id="gzip bomb"
    ),
    pytest.param([reply(302, Location="/0")], 1, "network", "the redirects go in a circle", id="circle of one"),
    pytest.param(
        [reply(302, Location="/1"), reply(302, Location="/0#x")],
        2,
        "network",
        "the redirects go in a circle",
        id="circle",
    ),
    pytest.param([endless], 6, "network", "more than 5 redirects", id="too many redirects"),
    pytest.param(
        [reply(301)], 1, "network", "the server answered 301 without saying where to go", id="redirect to nowhere"
    ),
    pytest.param(
        [reply(302, Location="file:///etc/passwd")],
        1,
        "network",
        "the target of a redirect is neither http nor https",
        id="redirect to a file",
    ),
]


@pytest.mark.parametrize(("responses", "requests", "code", "message"), BAD)
def test_bad(serve: Callable[..., Server], responses: list[Response], requests: int, code: str, message: str) -> None:
    server = serve(*responses)
    start = time.monotonic()
    failure = outcome(f"{server.url}/0".replace("http://", "http://someone:secret@"))
    assert time.monotonic() - start < 10 * LIMITS.seconds
    assert failure[0] == code
    assert failure[1].startswith(message)
    assert "secret" not in failure[1] and "\n" not in failure[1] and len(failure[1]) < 300
    assert len(server.requests) == requests


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("http://", "the URL names no host"),
        ("http:///cat.jpg", "the URL names no host"),
        ("http://127.0.0.1:99999/", "the URL has no valid port"),
        ("http://127.0.0.1:x/", "the URL is not valid: Invalid port"),
        ("http://someone:secret/", "the URL is not valid: Invalid port"),
        ("http://300.1.1.1/", "the URL is not valid: Invalid IPv4 address"),
        ("http://\udcff/", "the URL is not valid: Invalid IDNA hostname"),
        ("http://127.0.0.1/\udcff", "the URL is not valid: 'utf-8' codec can't encode"),
        ("http://127.0.0.1/a\nb", "the URL is not valid: Invalid non-printable ASCII character"),
        ("ftp://127.0.0.1/", "the URL is neither http nor https"),
    ],
)
def test_not_a_url(location: str, message: str) -> None:
    code, reason = outcome(location)
    assert code == "network"
    assert reason.startswith(message)
    assert "secret" not in reason


@pytest.mark.parametrize(
    "location", ["", "http://", "http://127.0.0.1:x/", "http://300.1.1.1/", "//[/", "http:?", "\x7f"]
)
def test_redirect_to_nonsense(serve: Callable[..., Server], location: str) -> None:
    code, _ = outcome(serve(reply(302, Location=location)).url)  # where it is detected depends on the version of httpx2
    assert code == "network"


ETAG, DATE = 'W/"7a"', "Sun, 06 Nov 1994 08:49:37 GMT"


def known_url(location: str, **known: str | int) -> Source:
    return Source(location, "url", Identity(**known))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("headers", "identity"),
    [
        ({"ETag": ETAG, "Last_Modified": DATE}, Identity(etag=ETAG, last_modified=DATE)),
        ({"ETag": ETAG}, Identity(etag=ETAG)),
        ({"Last_Modified": DATE}, Identity(last_modified=DATE)),
        ({}, Identity()),
        ({"ETag": ""}, Identity()),
        ({"ETag": '"a\tb"', "Last_Modified": "\x85"}, Identity()),
        ({"ETag": "e" * 1000, "Last_Modified": "m" * 1001}, Identity(etag="e" * 1000)),
    ],
)
def test_a_body_has_the_validators_of_its_version(
    serve: Callable[..., Server], headers: dict[str, str], identity: Identity
) -> None:
    there = serve(reply(302, Location="/there", ETag='"of the redirect"'), reply(200, b"cat", **headers))
    (item,) = fetched([url(there.url)])
    assert isinstance(item, Fetched) and (item.data, item.identity) == (b"cat", identity)


def test_a_failure_has_no_validators(serve: Callable[..., Server]) -> None:
    for respond in (reply(404, ETag=ETAG), reply(200, bytes(LIMITS.max_bytes + 1), ETag=ETAG)):
        (item,) = fetched([url(serve(respond).url)])
        assert isinstance(item, Failure) and item.identity == Identity()


@pytest.mark.parametrize(
    ("known", "conditions"),
    [
        ({"etag": ETAG, "last_modified": DATE}, {"If-None-Match": ETAG, "If-Modified-Since": DATE}),
        ({"etag": ETAG}, {"If-None-Match": ETAG}),
        ({"last_modified": DATE}, {"If-Modified-Since": DATE}),
        ({"etag": '"é"'}, {"If-None-Match": '"é"'.encode().decode("latin-1")}),
        ({"size": 3}, {}),
        ({"etag": "a\r\nHost: b", "last_modified": "\udcff"}, {}),
        ({"etag": "", "last_modified": "m" * 1001}, {}),
    ],
)
def test_a_known_url_is_requested_conditionally(
    serve: Callable[..., Server], known: dict[str, str | int], conditions: dict[str, str]
) -> None:
    server = serve(reply(304))
    items = fetched([known_url(server.url, **known)])
    ((_, headers),) = server.requests
    assert {name: headers[name] for name in ("If-None-Match", "If-Modified-Since") if name in headers} == conditions
    if conditions:
        assert items == []
    else:
        assert items == [Failure(url(server.url), "http_304", "the server answered 304 Not Modified")]


@pytest.mark.parametrize("etag", [b'"plain"', b'W/"a b"', '"日本"'.encode()])
def test_an_etag_is_sent_back_unchanged(serve: Callable[..., Server], etag: bytes) -> None:
    def respond(request: Request) -> None:
        sent = request.headers.get("If-None-Match", "").encode("latin-1")
        raw(HEAD.replace(b"200", b"304" if sent == etag else b"200") + b"ETag: %b\r\n\r\ncat" % etag)(request)

    location = serve(respond).url
    (item,) = fetched([url(location)])
    assert isinstance(item, Fetched) and item.data == b"cat"
    assert fetched([Source(location, "url", item.identity)]) == []


def test_a_changed_url_is_an_ordinary_download(serve: Callable[..., Server]) -> None:
    server = serve(reply(500), reply(200, b"new", ETag='"8"'))
    (item,) = fetched([known_url(server.url, etag=ETAG)])
    assert isinstance(item, Fetched) and (item.data, item.identity.etag) == (b"new", '"8"')


@pytest.mark.parametrize(("last", "count"), [(reply(304), 0), (CAT, 1)], ids=["unchanged", "changed"])
def test_conditions_follow_a_redirect(serve: Callable[..., Server], last: Response, count: int) -> None:
    server = serve(reply(302, Location="/there"), reply(503), reply(302, Location="/there"), last)
    assert len(fetched([known_url(server.url, etag=ETAG)])) == count
    assert [path for path, _ in server.requests] == ["/", "/there"] * 2
    assert {headers["If-None-Match"] for _, headers in server.requests} == {ETAG}


def test_unchanged_urls_hold_no_slot_and_no_memory(serve: Callable[..., Server]) -> None:
    size = LIMITS.max_bytes
    changed, unchanged = serve(reply(200, bytes(size))), serve(reply(304))
    found = [known_url((unchanged if number % 3 else changed).url, etag=str(number)) for number in range(300)]
    items = fetch([Source("a.jpg"), *found, Source("b.jpg")], LIMITS, lambda _: None)
    names = []
    for item in items:
        assert isinstance(item, Source) or (isinstance(item, Fetched) and len(item.data) == size)
        names.append(item.location if isinstance(item, Source) else item.source.known.etag)
    assert names == ["a.jpg", *map(str, range(0, 300, 3)), "b.jpg"]
    assert len(unchanged.requests) == 200


def test_nothing_has_changed(serve: Callable[..., Server]) -> None:
    server = serve(reply(304))
    assert fetched([known_url(f"{server.url}/{number}", etag=ETAG) for number in range(150)]) == []
    assert len(server.requests) == 150


def test_connection_refused() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert outcome(f"http://127.0.0.1:{unused.getsockname()[1]}/") == (
            "network",
            "no connection: Connection refused",
        )


def test_retry_after_is_kept(serve: Callable[..., Server]) -> None:
    server = serve(reply(429, Retry_After="1"), CAT)
    start = time.monotonic()
    assert outcome(server.url, FetchLimits(seconds=5)) == b"cat"
    assert time.monotonic() - start >= 1


def test_as_large_as_allowed(serve: Callable[..., Server]) -> None:
    body = bytes(LIMITS.max_bytes)
    assert outcome(serve(reply(200, body)).url) == body


def test_order(serve: Callable[..., Server]) -> None:
    slow, quick = serve(after(0.2, reply(200, b"slow"))), serve(CAT)
    failure = Failure(Source("folder"), "permission", "unreadable")
    found: list[Source | Failure] = [Source("a.jpg"), url(slow.url), failure, url(quick.url), Source("b.jpg")]
    assert fetched([*found, url("http://"), url(slow.url)]) == [
        Source("a.jpg"),
        Fetched(url(slow.url), b"slow"),
        failure,
        Fetched(url(quick.url), b"cat"),
        Source("b.jpg"),
        Failure(url("http://"), "network", "the URL names no host"),
        Fetched(url(slow.url), b"slow"),
    ]


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"cat")))
    assert fetched([STDIN]) == [Fetched(STDIN, b"cat")]
    monkeypatch.setattr(sys, "stdin", None)
    assert fetched([STDIN]) == [Failure(STDIN, "io_error", "standard input cannot be read")]


def test_headers_of_a_request(serve: Callable[..., Server]) -> None:
    server = serve(CAT)
    outcome(f"{server.url}/a%20b?c=d#e".replace("http://", "HTTP://me:secret@"))
    ((path, headers),) = server.requests
    assert path == "/a%20b?c=d"
    assert headers["User-Agent"] == f"beit/{__version__} (+image classification command line tool)"
    assert headers["Accept-Encoding"] == "identity"
    assert headers["Authorization"].startswith("Basic ")


def test_a_host_name(serve: Callable[..., Server]) -> None:
    assert outcome(f"http://localhost:{serve(CAT).server_port}/") == b"cat"


def test_cookies_are_not_kept(serve: Callable[..., Server]) -> None:
    def with_cookies(request: Request) -> None:
        request.send_response(200)
        for number in range(100):
            request.send_header("Set-Cookie", f"c{number}=1; Path=/")
        request.send_header("Content-Length", "0")
        request.end_headers()

    server = serve(with_cookies)
    fetched(url(f"{server.url}/{number}") for number in range(20))
    assert len(server.requests) == 20
    assert not [headers for _, headers in server.requests if "Cookie" in headers]


@pytest.mark.parametrize("known", [False, True], ids=["new", "connected already"])
def test_redirect_to_a_private_address(serve: Callable[..., Server], known: bool) -> None:
    private = serve(CAT)
    public = serve(after(0.1, reply(302, Location=f"{private.url}/secret")))
    found = [url(private.url)] * known + [url(public.url)]
    assert fetched(found)[-1] == Failure(
        url(public.url), "network", "refused a redirect to 127.0.0.1, which is not a public address"
    )
    assert len(private.requests) == known


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("::ffff:8.8.8.8", True),
        ("::ffff:10.0.0.1", False),
        ("10.0.0.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("::1", False),
        ("fd00::1", False),
        ("fe80::1%eth0", False),
    ],
)
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_eight_requests_per_host_and_waiting_for_them_is_not_counted(serve: Callable[..., Server]) -> None:
    running, most = 0, 0

    def count(request: Request) -> None:
        nonlocal running, most
        with request.server.lock:
            running += 1
            most = max(most, running)
        time.sleep(0.2)
        with request.server.lock:
            running -= 1
        CAT(request)

    server = serve(count)
    items = fetched(url(f"{server.url}/{number}") for number in range(40))  # five rounds: longer than the limit
    assert [item.data for item in items if isinstance(item, Fetched)] == [b"cat"] * 40
    assert most == 8


def test_connections_are_kept_for_the_next_request_but_not_for_ever(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_AHEAD", 4)
    servers = [serve(CAT) for _ in range(20)]
    items = fetch([*(url(server.url) for server in servers), Source("a.jpg")], LIMITS, lambda _: None)
    assert [item.data for item in itertools.islice(items, 20) if isinstance(item, Fetched)] == [b"cat"] * 20
    end = time.monotonic() + 5
    while (connected := sum(server.connections for server in servers)) > 4 and time.monotonic() < end:
        time.sleep(0.01)
    assert 0 < connected <= 4
    items.close()


def bodies_in_pieces(size: int, sent: list[int], patience: float | None = None) -> Response:
    """Count the bytes sent, and hang up on a client that reads none for longer than `patience`."""

    def respond(request: Request) -> None:
        request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        request.connection.settimeout(patience)
        request.wfile.write(HEAD + b"Content-Length: %d\r\n\r\n" % size)
        for _ in range(size // 65_536):
            request.connection.sendall(bytes(65_536))
            sent.append(65_536)

    return respond


def test_a_slow_consumer_bounds_the_bytes_in_memory(serve: Callable[..., Server]) -> None:
    size = 2**20
    sent: list[int] = []
    server = serve(bodies_in_pieces(size, sent))
    items = fetch([url(server.url)] * 60, FetchLimits(0.8, size), lambda _: None)
    bodies = [next(items)]
    time.sleep(1.2)  # longer than the limit: waiting for memory is not counted
    assert sum(sent) <= (1 + module.BODIES + 1 + module.PER_HOST) * size
    bodies += items
    assert [len(item.data) for item in bodies if isinstance(item, Fetched)] == [size] * 60


def test_a_server_that_gives_up_on_a_paused_download(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BODIES", 1)
    monkeypatch.setattr(module, "TRIES", 1)  # a transfer that we made wait is none of its tries
    size, given_up = 2**24, threading.Event()
    in_pieces = bodies_in_pieces(size, [], patience=0.1)

    def respond(request: Request) -> None:
        try:
            in_pieces(request)
        except TimeoutError:
            given_up.set()
            raise

    server = serve(respond)
    items = fetch([url(server.url)] * 6, FetchLimits(20, size * 5 // 4), lambda _: None)
    bodies = [next(items)]
    assert given_up.wait(20)
    bodies += items
    assert [len(item.data) for item in bodies if isinstance(item, Fetched)] == [size] * 6
    assert len(server.requests) > 6


def test_it_reads_ahead_only_for_urls(serve: Callable[..., Server]) -> None:
    slow = serve(after(0.2, CAT))
    pulled = 0

    def found() -> Iterator[Source]:
        nonlocal pulled
        for number in itertools.count():
            pulled += 1
            yield url(slow.url) if number in (3, 4, 300) else Source(str(number))

    items = fetch(found(), LIMITS, lambda _: None)
    for number in range(3):
        next(items)
        assert pulled == number + 1
    assert "beit-fetch" not in [thread.name for thread in threading.enumerate()]
    for number in range(3, 300):
        next(items)
        assert pulled - number <= module.LOOK_AHEAD
        if number >= 3 + module.LOOK_AHEAD:
            assert pulled == number + 1
    next(items)
    assert 301 < pulled <= 300 + module.LOOK_AHEAD
    items.close()


def test_on_wait_gets_the_time_that_the_network_took(serve: Callable[..., Server]) -> None:
    slow = serve(after(0.3, CAT))
    waits: list[float] = []
    items = fetch([url(slow.url), url(slow.url)], LIMITS, waits.append)
    next(items)
    assert 0.25 < sum(waits) < 3
    del waits[:]
    time.sleep(0.3)
    next(items)
    assert sum(waits) < 0.1
    items.close()


def test_closing_does_not_wait_for_a_server_that_hangs(serve: Callable[..., Server]) -> None:
    quick, hanging = serve(CAT), serve(after(60, CAT))
    items = fetch([url(quick.url), *[url(hanging.url)] * 20], FetchLimits(), lambda _: None)
    next(items)
    start = time.monotonic()
    items.close()
    assert time.monotonic() - start < 20


def test_an_interrupt_does_not_wait_for_a_server_that_hangs(serve: Callable[..., Server]) -> None:
    hanging = serve(after(60, CAT))

    def found() -> Iterator[Source]:
        yield url(hanging.url)
        time.sleep(0.2)
        raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        fetched(found(), FetchLimits())
    assert time.monotonic() - start < 20


def test_the_process_ends_while_a_server_hangs(serve: Callable[..., Server]) -> None:
    quick, hanging = serve(CAT), serve(after(30, CAT))
    script = f"""
import sys
from beitcli.inputs.fetch import FetchLimits, fetch
from beitcli.records import Source
list(fetch([Source("a.jpg")], FetchLimits(), print))
assert "httpx2" not in sys.modules
items = fetch([Source({quick.url!r}, "url"), Source({hanging.url!r}, "url")], FetchLimits(), lambda _: None)
print(next(items).data)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, timeout=25, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"b'cat'\n", b"")


def test_an_invalid_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("ALL_PROXY", "gopher://127.0.0.1")
    with pytest.raises(BeitError, match="URLs cannot be fetched: Unknown scheme for proxy URL"):
        fetched([url("http://127.0.0.1/")])
