"""URLs -> their bytes, ahead and in order.

All downloads run on one event loop in one daemon thread, so that none of them can keep the process from ending.
"""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import os
import socket
import ssl
import sys
import threading
import time
from calendar import timegm
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, aclosing, closing, suppress
from dataclasses import dataclass
from email.utils import parsedate
from functools import partial
from http.client import responses
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from beitcli import __version__
from beitcli.errors import BeitError, PictureError
from beitcli.inputs.sources import wait_at_standard_input
from beitcli.records import MOST_STREAMED, Failure, Fetched, Found, Identity, Source, printable

if TYPE_CHECKING:
    import httpx2

LOOK_AHEAD = 64  # items taken from the input before the first of them is handed on; so many requests at once
PER_HOST = 8
TRIES = 3
BACK_OFF = 0.5  # seconds before the second try, twice as long before the third
REDIRECTS = 5
BODIES = 4  # how many bodies of the largest size fit in the memory for bodies
CLOSING = 1.0  # seconds that the end of the downloads is waited for at most
LONGEST_REASON = 200  # characters of a message that a server may have a say in
LONGEST_VALIDATOR = 1000  # characters of an ETag or Last-Modified that is kept and said again
HEADERS = {"Accept-Encoding": "identity", "User-Agent": f"beit/{__version__} (+image classification command line tool)"}


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """What one URL may take."""

    seconds: float = 60.0  # in all: retries included, waiting for a host slot not
    max_bytes: int = 64_000_000  # of one body


def fetch(
    found: Iterable[Found], limits: FetchLimits, waited: Callable[[float], None]
) -> Iterator[Source | Fetched | Failure]:
    """What was found, in order, each URL and standard input replaced by its bytes or by the reason why there are none.

    Left out is a URL whose server says (304) that it is still what is `known` of it: who knows it has its answer.
    Lazy: `found` is read ahead of what is handed on, by less than `LOOK_AHEAD`, and only while URLs are in flight.
    `waited` is told for how many seconds the network kept the caller waiting.
    """
    with closing(_answers(found, limits, waited)) as answers:
        yield from filter(None, answers)  # unlike a loop, it holds no body while the caller works on it


def _answers(
    found: Iterable[Found], limits: FetchLimits, waited: Callable[[float], None]
) -> Generator[Source | Fetched | Failure | None, None, None]:
    """As `fetch`, with None for what is unchanged."""
    ahead: deque[Found | _Download] = deque()
    fetcher: _Fetcher | None = None
    with ExitStack() as stack:
        for item in found:
            if isinstance(item, Source) and item.kind == "url":
                fetcher = fetcher or stack.enter_context(closing(_Fetcher(limits)))
                ahead.append(fetcher.start(item))
            else:
                ahead.append(item)
            if len(ahead) == LOOK_AHEAD or _is_there(ahead[0]):
                yield _handed_on(ahead.popleft(), waited)
            while ahead and not any(isinstance(item, _Download) for item in ahead):
                yield _handed_on(ahead.popleft(), waited)
        while ahead:
            yield _handed_on(ahead.popleft(), waited)


def _is_there(item: Found | _Download) -> bool:
    return not isinstance(item, _Download) or item.answer.done()


def _handed_on(item: Found | _Download, waited: Callable[[float], None]) -> Source | Fetched | Failure | None:
    if isinstance(item, _Download):
        start = time.monotonic()
        answer = item.answer.result()
        waited(time.monotonic() - start)
        item.fetcher.move_on()
        return answer
    return _read(item) if isinstance(item, Source) and item.kind == "stdin" else item


def _read(source: Source) -> Fetched | Failure:
    try:
        wait_at_standard_input()
        data = sys.stdin.buffer.read(MOST_STREAMED + 1)
        if len(data) > MOST_STREAMED:
            return Failure(source, "too_large", f"standard input brings more than {MOST_STREAMED} bytes")
        return Fetched(source, data)
    except (OSError, AttributeError):  # sys.stdin is None when the process was started without one
        return Failure(source, "io_error", "standard input cannot be read")


class _PassingError(PictureError):
    """A failure that another try may get past, `after` so many seconds where the server named them."""

    def __init__(self, code: str, message: str, after: float | None = None) -> None:
        super().__init__(code, message)
        self.after = after


@dataclass(frozen=True, slots=True)
class _Job:
    """One URL in work: its place among all URLs, what was asked for, where it is, and its time."""

    number: int
    source: Source
    url: httpx2.URL
    clock: _Clock


@dataclass(frozen=True, slots=True)
class _Download:
    """An answer on its way; the fetcher wants to hear of each that is handed on, in the order of their start."""

    answer: Future[Fetched | Failure | None]
    fetcher: _Fetcher


class _Fetcher:
    """Downloads on an event loop in a thread of its own, until it is closed."""

    def __init__(self, limits: FetchLimits) -> None:
        self._limits = limits
        self._keeping, self._fresh = _clients()
        self._room = _Room(BODIES * limits.max_bytes)
        self._slots: WeakValueDictionary[bytes, asyncio.Semaphore] = WeakValueDictionary()
        self._numbers = itertools.count()
        self._loop = _Loop()
        self._thread = threading.Thread(target=self._run, name="beit-fetch", daemon=True)
        self._thread.start()

    def start(self, source: Source) -> _Download:
        answer = asyncio.run_coroutine_threadsafe(self._answer(next(self._numbers), source), self._loop)
        return _Download(answer, self)

    def move_on(self) -> None:
        self._loop.call_soon_threadsafe(self._room.move_on)

    def close(self) -> None:
        """Ends all downloads, and waits for that no longer than `CLOSING`."""
        with suppress(RuntimeError):  # the loop is closed already, or the interpreter is on its way out
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(CLOSING)

    def _run(self) -> None:
        with closing(self._loop):
            self._loop.run_forever()
            self._loop.run_until_complete(self._wind_up())

    async def _wind_up(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._keeping.aclose()
        await self._fresh.aclose()
        await self._loop.shutdown_asyncgens()

    async def _answer(self, number: int, source: Source) -> Fetched | Failure | None:
        try:
            url = _checked(source.location, "the URL")
            # First come, first served: a slot that the next answer needs is never held by a later one that has to wait.
            async with self._slots.setdefault(url.raw_host, asyncio.Semaphore(PER_HOST)):
                with _Clock(self._limits.seconds) as clock:
                    return await self._tries(_Job(number, source, url, clock))
        except PictureError as error:
            self._room.give_back(number)
            return Failure(source, error.code, str(error))

    async def _tries(self, job: _Job) -> Fetched | None:
        failed = 0
        while True:
            await self._room.take(job, 0)
            stops = job.clock.stops
            try:
                return await self._follow(job)
            except _PassingError as failure:
                self._room.give_back(job.number)
                failed += stops == job.clock.stops  # it was not the server's fault if we kept it waiting
                pause = BACK_OFF * 2 ** max(failed - 1, 0) if failure.after is None else failure.after
                if failed == TRIES or pause > job.clock.left:
                    raise
            await asyncio.sleep(pause)

    async def _follow(self, job: _Job) -> Fetched | None:
        hops = [job.url]
        while len(hops) <= 1 + REDIRECTS:
            answer = await self._get(hops[-1], job)
            if answer is None or isinstance(answer, Fetched):
                return answer
            if answer in hops:
                raise PictureError("network", "the redirects go in a circle")
            hops.append(answer)
        raise PictureError("network", f"more than {REDIRECTS} redirects")

    async def _get(self, url: httpx2.URL, job: _Job) -> Fetched | httpx2.URL | None:
        """What one request brings: a body, where to go instead, or None if the body is what is known already."""
        import httpx2

        # A connection that was kept has no peer to judge any more, so foreign targets never get one.
        typed = (url.scheme, url.raw_host, url.port) == (job.url.scheme, job.url.raw_host, job.url.port)
        client, extensions = (self._keeping, {}) if typed else (self._fresh, {"trace": _refuse_private})
        conditions = _conditions(job.source.known)
        try:
            async with client.stream("GET", url, headers=conditions, extensions=extensions) as response:
                if response.status_code in (301, 302, 303, 307, 308):
                    return _target(response)
                if response.status_code == 304 and conditions:
                    return None
                if not response.is_success:
                    raise _http_failure(response)
                return Fetched(job.source, await self._body(response, job), _identity(response))
        except (httpx2.RequestError, httpx2.InvalidURL, OSError, ValueError) as error:
            what = "no connection" if isinstance(error, httpx2.ConnectError) else "the transfer broke off"
            raise _PassingError("network", f"{what}: {_reason(error)}") from error

    async def _body(self, response: httpx2.Response, job: _Job) -> bytes:
        most = self._limits.max_bytes
        too_large = PictureError("too_large", f"more than {most:,} bytes (--url-max-bytes)")
        if int(response.headers.get("Content-Length", 0)) > most:
            raise too_large
        body = bytearray()
        async with aclosing(response.aiter_bytes()) as chunks:
            async for chunk in chunks:
                if len(body) + len(chunk) > most:
                    raise too_large
                await self._room.take(job, len(chunk))
                body += chunk
        return bytes(body)


class _Room:
    """The memory for bodies, which all downloads share; the first of them may always go on, so none waits for ever."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._taken: Counter[int] = Counter()
        self._first = 0
        self._changed = asyncio.Event()

    async def take(self, job: _Job, size: int) -> None:
        while self._free <= 0 and job.number != self._first:
            self._changed.clear()
            job.clock.stop()
            await self._changed.wait()
            job.clock.go()
        self._taken[job.number] += size
        self._free -= size

    def give_back(self, number: int) -> None:
        self._free += self._taken.pop(number, 0)
        self._changed.set()

    def move_on(self) -> None:
        self.give_back(self._first)
        self._first += 1


class _Clock:
    """Ends what runs in it as `timeout` once its seconds are over; those between `stop` and `go` do not count."""

    def __init__(self, seconds: float) -> None:
        self.stops = 0
        self._seconds = self._left = seconds
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._is_over = False

    def __enter__(self) -> _Clock:
        self.go()
        return self

    def __exit__(self, *_: object) -> None:
        self._alarm.cancel()
        if self._is_over:
            raise PictureError("timeout", f"no answer within {self._seconds:g} s (--url-timeout)")

    @property
    def left(self) -> float:
        return self._alarm.when() - self._loop.time()

    def go(self) -> None:
        self._alarm = self._loop.call_later(self._left, self._ring)

    def stop(self) -> None:
        self.stops += 1
        self._left = self.left
        self._alarm.cancel()

    def _ring(self) -> None:
        self._is_over = True
        if self._task is not None:
            self._task.cancel()


class _Loop(asyncio.SelectorEventLoop):
    """An event loop that looks names up in daemon threads: the end of the process would wait for an executor's."""

    async def getaddrinfo(self, host: Any, port: Any, **hints: Any) -> Any:
        found: Future[Any] = Future()
        found.set_running_or_notify_cancel()

        def look_up() -> None:
            try:
                found.set_result(socket.getaddrinfo(host, port, **hints))
            except (OSError, ValueError) as error:
                found.set_exception(error)

        threading.Thread(target=look_up, name="beit-lookup", daemon=True).start()
        return await asyncio.wrap_future(found)


def _clients() -> tuple[httpx2.AsyncClient, httpx2.AsyncClient]:
    """A client that keeps connections for the next request, and one that never does."""
    import httpx2

    try:
        client = partial(
            httpx2.AsyncClient,
            headers=HEADERS,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            timeout=None,
            verify=httpx2.create_ssl_context(),
        )
        # Without a limit they pile up in a list of many hosts, and each request goes through all of them.
        keeping, fresh = (httpx2.Limits(max_keepalive_connections=most) for most in (LOOK_AHEAD, 0))
        return client(limits=keeping), client(limits=fresh)
    except (ImportError, OSError, ValueError, httpx2.InvalidURL) as error:
        hint = "see the variables for proxies and certificates in the environment: ALL_PROXY, SSL_CERT_FILE and so on"
        raise BeitError(f"URLs cannot be fetched: {_reason(error)}", hint) from error


def _checked(text: str, what: str, base: httpx2.URL | None = None) -> httpx2.URL:
    """The URL, if a request can be made of it; `what` says in messages what it is."""
    import httpx2

    try:
        url = (httpx2.URL(text) if base is None else base.join(text)).copy_with(fragment=None)
    except (httpx2.InvalidURL, ValueError) as error:
        # Only the kind of mistake: what follows the colon may be a part of a password.
        raise PictureError("network", f"{what} is not valid: {str(error).partition(':')[0]}") from error
    if url.scheme not in ("http", "https"):
        raise PictureError("network", f"{what} is neither http nor https")
    if not url.raw_host:
        raise PictureError("network", f"{what} names no host")
    if url.port is not None and not 0 < url.port < 2**16:
        raise PictureError("network", f"{what} has no valid port")
    return url


def _target(response: httpx2.Response) -> httpx2.URL:
    if "Location" not in response.headers:
        raise PictureError("network", f"the server answered {response.status_code} without saying where to go")
    return _checked(response.headers["Location"], "the target of a redirect", response.url)


def _conditions(known: Identity) -> dict[bytes, bytes]:
    """The headers that ask for a body only if it is not the one that is known; none if nothing tells them apart."""
    headers = {b"If-None-Match": _validator(known.etag), b"If-Modified-Since": _validator(known.last_modified)}
    return {name: value.encode() for name, value in headers.items() if value}


def _identity(response: httpx2.Response) -> Identity:
    headers = response.headers
    return Identity(etag=_validator(headers.get("ETag")), last_modified=_validator(headers.get("Last-Modified")))


def _validator(text: str | None) -> str | None:
    """What a server said of a version, if it can be kept and said to it again."""
    return text if text and len(text) <= LONGEST_VALIDATOR and text.isprintable() else None


def _http_failure(response: httpx2.Response) -> PictureError:
    status = response.status_code
    code, message = f"http_{status}", f"the server answered {status} {responses.get(status, '')}".rstrip()
    if status == 429 or response.is_server_error:
        return _PassingError(code, message, _seconds_from(response.headers.get("Retry-After", "")))
    return PictureError(code, message)


def _seconds_from(retry_after: str) -> float | None:
    """How long a Retry-After asks to wait, whether it says so in seconds or with a date; None if it says neither."""
    with suppress(ValueError):
        return max(0, int(retry_after))
    with suppress(ValueError, OverflowError):
        if date := parsedate(retry_after):
            return max(0.0, timegm(date) - time.time())  # dates in HTTP are always GMT
    return None


async def _refuse_private(event: str, info: Mapping[str, Any]) -> None:
    """A trace that ends a request at the moment it is connected to an address that is not public, before it sends."""
    if event.endswith("connect_tcp.complete"):
        stream = info["return_value"]
        address = str(stream.get_extra_info("server_addr")[0])
        if not _is_public(address):
            await stream.aclose()
            raise PictureError("network", f"refused a redirect to {address}, which is not a public address")


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    return (getattr(ip, "ipv4_mapped", None) or ip).is_global


def _reason(error: BaseException) -> str:
    """What lies at the bottom of an error, in the words of the operating system if it is from there; one line."""
    while cause := getattr(error, "exceptions", [None])[0] or error.__cause__ or error.__context__:
        error = cause
    text = str(error)
    if isinstance(error, OSError) and error.errno:
        has_own_numbers = isinstance(error, (socket.gaierror, ssl.SSLError))
        text = str(error.strerror) if has_own_numbers else os.strerror(error.errno)
    return printable(" ".join(text.split()))[:LONGEST_REASON] or type(error).__name__
