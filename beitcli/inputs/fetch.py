"""URLs -> their bytes, prefetched and in order.

All downloads run on one event loop in one daemon thread, so that none of them can keep the process from ending.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from contextlib import ExitStack, aclosing, closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from beitcli.errors import ImageError
from beitcli.inputs.http import (
    TransientError,
    checked,
    clients,
    conditions_of,
    failure_of,
    identity_of,
    reason_of,
    refuse_private,
    target_of,
)
from beitcli.inputs.sources import wait_at_standard_input
from beitcli.records import MOST_STREAMED, Failure, Fetched, Found, Source

if TYPE_CHECKING:
    import httpx2

LOOK_AHEAD = 64  # items read from the input before the first of them is yielded; at most so many requests at once
PER_HOST = 8
TRIES = 3
BACK_OFF = 0.5  # seconds before the second try, twice as long before the third
REDIRECTS = 5
BODIES = 4  # bodies of the largest size that fit in the memory for bodies
CLOSING = 1.0  # seconds to wait for the downloads to end, at most


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """Limits of one URL."""

    seconds: float = 60.0  # in total, with retries but without waiting for a host slot
    max_bytes: int = 64_000_000  # of one body


def fetch(
    found: Iterable[Found | Fetched], limits: FetchLimits, on_wait: Callable[[float], None]
) -> Generator[Source | Fetched | Failure, None, None]:
    """The items found, in order, with each URL and standard input replaced by its bytes or by a failure.

    What has its bytes already passes through.
    A URL whose server reports it unchanged (304) since `known` is left out: the caller has its result already.
    Lazy: `found` is read ahead of what is yielded, by less than `LOOK_AHEAD`, and only while URLs are in flight.
    `on_wait` gets the seconds for which the network blocked the caller.
    """
    with closing(_results(found, limits, on_wait)) as results:
        yield from filter(None, results)  # unlike a loop, it holds no body while the caller works on it


def _results(
    found: Iterable[Found | Fetched], limits: FetchLimits, on_wait: Callable[[float], None]
) -> Generator[Source | Fetched | Failure | None, None, None]:
    """As `fetch`, with None for an unchanged URL."""
    ahead: deque[Found | Fetched | _Download] = deque()
    fetcher: _Fetcher | None = None
    with ExitStack() as stack:
        for item in found:
            if isinstance(item, Source) and item.kind == "url":
                fetcher = fetcher or stack.enter_context(closing(_Fetcher(limits)))
                ahead.append(fetcher.start(item))
            else:
                ahead.append(item)
            if len(ahead) == LOOK_AHEAD or _is_ready(ahead[0]):
                yield _delivered(ahead.popleft(), on_wait)
            while ahead and not any(isinstance(item, _Download) for item in ahead):
                yield _delivered(ahead.popleft(), on_wait)
        while ahead:
            yield _delivered(ahead.popleft(), on_wait)


def _is_ready(item: Found | Fetched | _Download) -> bool:
    return not isinstance(item, _Download) or item.result.done()


def _delivered(
    item: Found | Fetched | _Download, on_wait: Callable[[float], None]
) -> Source | Fetched | Failure | None:
    if isinstance(item, _Download):
        start = time.monotonic()
        result = item.result.result()
        on_wait(time.monotonic() - start)
        item.fetcher.advance()
        return result
    return read_standard_input(item) if isinstance(item, Source) and item.kind == "stdin" else item


def read_standard_input(source: Source) -> Fetched | Failure:
    """The bytes on standard input, or a failure."""
    try:
        wait_at_standard_input()
        data = sys.stdin.buffer.read(MOST_STREAMED + 1)
        if len(data) > MOST_STREAMED:
            return Failure(source, "too_large", f"standard input brings more than {MOST_STREAMED} bytes")
        return Fetched(source, data)
    except (OSError, AttributeError):  # sys.stdin is None when the process was started without one
        return Failure(source, "io_error", "standard input cannot be read")


@dataclass(frozen=True, slots=True)
class _Job:
    """One URL in progress: its number among all URLs, its source, its address and its clock."""

    number: int
    source: Source
    url: httpx2.URL
    clock: _Clock


@dataclass(frozen=True, slots=True)
class _Download:
    """A pending result. `fetcher.advance` must follow each that is consumed, in the order of their start."""

    result: Future[Fetched | Failure | None]
    fetcher: _Fetcher


class _Fetcher:
    """Downloads on an event loop in a thread of its own, until it is closed."""

    def __init__(self, limits: FetchLimits) -> None:
        self._limits = limits
        self._pooled, self._unpooled = clients(LOOK_AHEAD)
        self._memory = _BodyMemory(BODIES * limits.max_bytes)
        self._slots: WeakValueDictionary[bytes, asyncio.Semaphore] = WeakValueDictionary()
        self._numbers = itertools.count()
        self._loop = _Loop()
        self._thread = threading.Thread(target=self._run, name="beit-fetch", daemon=True)
        self._thread.start()

    def start(self, source: Source) -> _Download:
        result = asyncio.run_coroutine_threadsafe(self._download(next(self._numbers), source), self._loop)
        return _Download(result, self)

    def advance(self) -> None:
        self._loop.call_soon_threadsafe(self._memory.advance)

    def close(self) -> None:
        """End all downloads, and wait at most `CLOSING` seconds for it."""
        with suppress(RuntimeError):  # the loop is closed already, or the interpreter is shutting down
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(CLOSING)

    def _run(self) -> None:
        with closing(self._loop):
            self._loop.run_forever()
            self._loop.run_until_complete(self._shut_down())

    async def _shut_down(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._pooled.aclose()
        await self._unpooled.aclose()
        await self._loop.shutdown_asyncgens()

    async def _download(self, number: int, source: Source) -> Fetched | Failure | None:
        try:
            url = checked(source.address or source.location, "the URL")
            # First come, first served: no later download that has to wait holds a slot that the next result needs.
            async with self._slots.setdefault(url.raw_host, asyncio.Semaphore(PER_HOST)):
                with _Clock(self._limits.seconds) as clock:
                    return await self._retry(_Job(number, source, url, clock))
        except ImageError as error:
            self._memory.release(number)
            return Failure(source, error.code, str(error))

    async def _retry(self, job: _Job) -> Fetched | None:
        failed = 0
        while True:
            await self._memory.acquire(job, 0)
            stops = job.clock.stops
            try:
                return await self._follow(job)
            except TransientError as failure:
                self._memory.release(job.number)
                failed += stops == job.clock.stops  # not the server's fault if we made it wait
                pause = BACK_OFF * 2 ** max(failed - 1, 0) if failure.after is None else failure.after
                if failed == TRIES or pause > job.clock.left:
                    raise
            await asyncio.sleep(pause)

    async def _follow(self, job: _Job) -> Fetched | None:
        hops = [job.url]
        while len(hops) <= 1 + REDIRECTS:
            result = await self._get(hops[-1], job)
            if result is None or isinstance(result, Fetched):
                return result
            if result in hops:
                raise ImageError("network", "the redirects go in a circle")
            hops.append(result)
        raise ImageError("network", f"more than {REDIRECTS} redirects")

    async def _get(self, url: httpx2.URL, job: _Job) -> Fetched | httpx2.URL | None:
        """Result of one request: a body, the target of a redirect, or None if the body is unchanged."""
        import httpx2

        # The peer of a reused connection is not checked again, so foreign targets never get one.
        typed = (url.scheme, url.raw_host, url.port) == (job.url.scheme, job.url.raw_host, job.url.port)
        client, extensions = (self._pooled, {}) if typed else (self._unpooled, {"trace": refuse_private})
        conditions = conditions_of(job.source.known)
        try:
            async with client.stream("GET", url, headers=conditions, extensions=extensions) as response:
                if response.status_code in (301, 302, 303, 307, 308):
                    return target_of(response)
                if response.status_code == 304 and conditions:
                    return None
                if not response.is_success:
                    raise failure_of(response)
                return Fetched(job.source, await self._body(response, job), identity_of(response))
        except (httpx2.RequestError, httpx2.InvalidURL, OSError, ValueError) as error:
            what = "no connection" if isinstance(error, httpx2.ConnectError) else "the transfer broke off"
            raise TransientError("network", f"{what}: {reason_of(error)}") from error

    async def _body(self, response: httpx2.Response, job: _Job) -> bytes:
        most = self._limits.max_bytes
        too_large = ImageError("too_large", f"more than {most:,} bytes (--url-max-bytes)")
        if int(response.headers.get("Content-Length", 0)) > most:
            raise too_large
        body = bytearray()
        async with aclosing(response.aiter_bytes()) as chunks:
            async for chunk in chunks:
                if len(body) + len(chunk) > most:
                    raise too_large
                await self._memory.acquire(job, len(chunk))
                body += chunk
        return bytes(body)


class _BodyMemory:
    """The memory for bodies, shared by all downloads; the first of them never waits, so there is no deadlock."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._taken: Counter[int] = Counter()
        self._first = 0
        self._changed = asyncio.Event()

    async def acquire(self, job: _Job, size: int) -> None:
        while self._free <= 0 and job.number != self._first:
            self._changed.clear()
            job.clock.stop()
            await self._changed.wait()
            job.clock.start()
        self._taken[job.number] += size
        self._free -= size

    def release(self, number: int) -> None:
        self._free += self._taken.pop(number, 0)
        self._changed.set()

    def advance(self) -> None:
        self.release(self._first)
        self._first += 1


class _Clock:
    """Time limit: cancels its block as `timeout`. Seconds between `stop` and `start` do not count."""

    def __init__(self, seconds: float) -> None:
        self.stops = 0
        self._seconds = self._left = seconds
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._expired = False

    def __enter__(self) -> _Clock:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._alarm.cancel()
        if self._expired:
            raise ImageError("timeout", f"no answer within {self._seconds:g} s (--url-timeout)")

    @property
    def left(self) -> float:
        return self._alarm.when() - self._loop.time()

    def start(self) -> None:
        self._alarm = self._loop.call_later(self._left, self._expire)

    def stop(self) -> None:
        self.stops += 1
        self._left = self.left
        self._alarm.cancel()

    def _expire(self) -> None:
        self._expired = True
        if self._task is not None:
            self._task.cancel()


class _Loop(asyncio.SelectorEventLoop):
    """An event loop that resolves names in daemon threads: the process would wait for an executor's to end."""

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
