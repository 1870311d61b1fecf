"""What travels: where a picture is, and what was found out about it. Every record carries its source."""

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells whether a picture is still the one that was answered; what is not known is None.

    `size` in bytes and `mtime_ns` are those of the open file, `etag` and `last_modified` those of a URL's answer,
    `digest` is the SHA-256 of the picture's bytes.
    """

    size: int | None = None
    mtime_ns: int | None = None
    etag: str | None = None
    last_modified: str | None = None
    digest: bytes | None = None

    @classmethod
    def of_file(cls, status: os.stat_result) -> "Identity":
        within = 2**63 - 1  # what a database can hold; some file systems do not mind a year of seven digits
        return cls(size=status.st_size, mtime_ns=max(-within, min(status.st_mtime_ns, within)))


UNKNOWN = Identity()

_ESCAPED_BYTE = re.compile(rb"\\x([89a-f][0-9a-f])")


@dataclass(frozen=True, slots=True)
class Source:
    """One picture as it was asked for: a path (bytes that are not UTF-8 as surrogates), a URL, or `-` for stdin.

    `known` is what is known before it is read: a file's size and time, or what the server said of a URL last time,
    which is then only fetched if it has changed.
    """

    location: str
    kind: Literal["path", "url", "stdin"] = "path"
    known: Identity = field(default=UNKNOWN, compare=False)

    @property
    def name(self) -> str:
        """The location as records show it: bytes that are not UTF-8 are written `\\xNN`."""
        return os.fsencode(self.location).decode("utf-8", "backslashreplace")

    @classmethod
    def named(cls, name: str) -> "Source":
        """The path that records show by this name. Raises ValueError for a name that no path has.

        Where a file's own name has a backslash, `x` and two digits, nothing tells it from the byte.
        """
        if not name or "\0" in name:
            raise ValueError(f"`{name}` is no source")
        path = _ESCAPED_BYTE.sub(lambda match: bytes.fromhex(match[1].decode()), name.encode())
        # What is text without its escapes was text before: those are the file's own.
        return cls(os.fsdecode(path if path.decode("utf-8", "backslashreplace") == name else name.encode()))


STDIN = Source("-", "stdin")


MOST_STREAMED = 1_000_000_000
"""Bytes of one picture from a pipe or standard input, which do not say how long they are."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A picture whose bytes are in memory, because only the main process can get them: a URL or standard input."""

    source: Source
    data: bytes
    identity: Identity = field(default=UNKNOWN, compare=False)


def source_of(item: Source | Fetched) -> Source:
    return item.source if isinstance(item, Fetched) else item


@dataclass(frozen=True, slots=True)
class Score:
    """One label's score in [0, 1], the shortest decimal that gives the model's float32 back."""

    label: str
    index: int
    score: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one picture, best label first; `reused` if it is that of an identical picture."""

    source: Source
    scores: tuple[Score, ...]
    identity: Identity = field(default=UNKNOWN, compare=False)
    reused: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Embedding:
    """The features of one picture, of shape (hidden,) or (patches, hidden); `reused` as in a prediction."""

    source: Source
    features: "np.ndarray[Any, Any]" = field(compare=False)
    identity: Identity = field(default=UNKNOWN, compare=False)
    reused: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one picture has no answer; `code` is one of `errors.ERROR_CODES`, `message` a single line."""

    source: Source
    code: str
    message: str
    identity: Identity = field(default=UNKNOWN, compare=False)


Record: TypeAlias = Prediction | Failure
Found: TypeAlias = Source | Failure
"""What discovery finds: a picture to open, or a folder that could not be read."""


def printable(text: str) -> str:
    """The text with everything that could steer a terminal (control and format characters) written as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
