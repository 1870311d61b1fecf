"""HTTP requests and responses: clients, URLs, versions of a body, and failures.

Any of it may be the work of a hostile server.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import time
from calendar import timegm
from collections.abc import Mapping
from contextlib import suppress
from email.utils import parsedate
from functools import partial
from http.client import responses
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

from beitcli import __version__
from beitcli.errors import BeitError, ImageError
from beitcli.records import Identity, printable

if TYPE_CHECKING:
    import httpx2

LONGEST_REASON = 200  # characters of a message that a server may influence
LONGEST_VALIDATOR = 1000  # characters of an ETag or Last-Modified that is kept and sent back
HEADERS = {"Accept-Encoding": "identity", "User-Agent": f"beit/{__version__} (+image classification command line tool)"}


class TransientError(ImageError):
    """A failure that may pass on a retry, `after` the seconds that the server named, if it did."""

    def __init__(self, code: str, message: str, after: float | None = None) -> None:
        super().__init__(code, message)
        self.after = after


def clients(kept: int) -> tuple[httpx2.AsyncClient, httpx2.AsyncClient]:
    """A client that keeps up to so many connections, and one that keeps none."""
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
        pooled, unpooled = (httpx2.Limits(max_keepalive_connections=most) for most in (kept, 0))
        return client(limits=pooled), client(limits=unpooled)
    except (ImportError, OSError, ValueError, httpx2.InvalidURL) as error:
        hint = "see the variables for proxies and certificates in the environment: ALL_PROXY, SSL_CERT_FILE and so on"
        raise BeitError(f"URLs cannot be fetched: {reason_of(error)}", hint) from error


def checked(text: str, what: str, base: httpx2.URL | None = None) -> httpx2.URL:
    """The URL, if it can be requested; `what` names it in messages."""
    import httpx2

    try:
        url = (httpx2.URL(text) if base is None else base.join(text)).copy_with(fragment=None)
    except (httpx2.InvalidURL, ValueError) as error:
        # Only the kind of error: the text after the colon may be a part of a password.
        raise ImageError("network", f"{what} is not valid: {str(error).partition(':')[0]}") from error
    if url.scheme not in ("http", "https"):
        raise ImageError("network", f"{what} is neither http nor https")
    if not url.raw_host:
        raise ImageError("network", f"{what} names no host")
    if url.port is not None and not 0 < url.port < 2**16:
        raise ImageError("network", f"{what} has no valid port")
    return url


def target_of(response: httpx2.Response) -> httpx2.URL:
    """The target of a redirect. Raises ImageError where it names none, or none that can be requested."""
    if "Location" not in response.headers:
        raise ImageError("network", f"the server answered {response.status_code} without saying where to go")
    return checked(response.headers["Location"], "the target of a redirect", response.url)


def conditions_of(known: Identity) -> dict[bytes, bytes]:
    """The headers that request a body only if it has changed; none without a validator of the known one."""
    headers = {b"If-None-Match": _validator(known.etag), b"If-Modified-Since": _validator(known.last_modified)}
    return {name: value.encode() for name, value in headers.items() if value}


def identity_of(response: httpx2.Response) -> Identity:
    """The version of the body, by the server's validators."""
    headers = response.headers
    return Identity(etag=_validator(headers.get("ETag")), last_modified=_validator(headers.get("Last-Modified")))


def _validator(text: str | None) -> str | None:
    """The server's validator of a version (ETag or date), if it can be kept and sent back."""
    return text if text and len(text) <= LONGEST_VALIDATOR and text.isprintable() else None


def failure_of(response: httpx2.Response) -> ImageError:
    """The failure that the response stands for; a TransientError where another try may help."""
    status = response.status_code
    code, message = f"http_{status}", f"the server answered {status} {responses.get(status, '')}".rstrip()
    if status == 429 or response.is_server_error:
        return TransientError(code, message, _seconds_from(response.headers.get("Retry-After", "")))
    return ImageError(code, message)


def _seconds_from(retry_after: str) -> float | None:
    """The seconds to wait by a Retry-After, which holds seconds or a date; None if it is neither."""
    with suppress(ValueError):
        return max(0, int(retry_after))
    with suppress(ValueError, OverflowError):
        if date := parsedate(retry_after):
            return max(0.0, timegm(date) - time.time())  # dates in HTTP are always GMT
    return None


async def refuse_private(event: str, info: Mapping[str, Any]) -> None:
    """A trace that aborts a request as soon as it is connected to an address that is not public, before it sends."""
    if event.endswith("connect_tcp.complete"):
        stream = info["return_value"]
        address = str(stream.get_extra_info("server_addr")[0])
        if not is_public(address):
            await stream.aclose()
            raise ImageError("network", f"refused a redirect to {address}, which is not a public address")


def is_public(address: str) -> bool:
    """True for an address of the internet, false for one of this machine or a private network."""
    ip = ipaddress.ip_address(address)
    return (getattr(ip, "ipv4_mapped", None) or ip).is_global


def reason_of(error: BaseException) -> str:
    """The root cause of an error as one line, in the operating system's words if it is an OSError."""
    while cause := getattr(error, "exceptions", [None])[0] or error.__cause__ or error.__context__:
        error = cause
    text = str(error)
    if isinstance(error, OSError) and error.errno:
        has_own_numbers = isinstance(error, (socket.gaierror, ssl.SSLError))
        text = str(error.strerror) if has_own_numbers else os.strerror(error.errno)
    return printable(" ".join(text.split()))[:LONGEST_REASON] or type(error).__name__
