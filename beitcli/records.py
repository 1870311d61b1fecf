"""Records: sources of images, and predictions, features or failures for them. Every record carries its source."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

if TYPE_CHECKING:
    import numpy as np


def storable(nanoseconds: int) -> int:
    """The time of a file, or the first or last one that a database's integers hold: from 1677 to 2262."""
    limit = 2**63 - 1  # some file systems allow a year of seven digits
    return max(-limit, min(nanoseconds, limit))


@dataclass(frozen=True, slots=True)
class Identity:
    """Facts that detect a changed image; unknown ones are None.

    `size` in bytes and `mtime_ns` are those of the open file, `etag` and `last_modified` those of a URL's response,
    `digest` is the SHA-256 of the image's bytes. `pixels` is the lowest limit of pixels under which it was decoded.
    """

    size: int | None = None
    mtime_ns: int | None = None
    etag: str | None = None
    last_modified: str | None = None
    digest: bytes | None = None
    pixels: int | None = field(default=None, compare=False)

    @classmethod
    def of_file(cls, status: os.stat_result) -> "Identity":
        return cls(size=status.st_size, mtime_ns=storable(status.st_mtime_ns))


UNKNOWN = Identity()

OTHER_TYPE = "not an image type"
"""Reason for a file that a walk skips because of its suffix."""

_OTHERS = "others"
_SUFFIXES_SHOWN = 5
_MOST_SUFFIXES = 1000  # kept in memory
_LONGEST_SUFFIX = 12

_ESCAPED_BYTE = re.compile(rb"\\x([89a-f][0-9a-f])")


@dataclass(frozen=True, slots=True)
class Source:
    """One image as requested: a path (bytes that are not UTF-8 as surrogates), a URL, or `-` for stdin.

    `address` is the URL to fetch where it holds a password or a signature, which `location` is without.
    `known` is its identity before it is read: a file's size and time, or the ETag and date of a URL's last response;
    the URL is then only fetched if it has changed.
    """

    location: str
    kind: Literal["path", "url", "stdin"] = "path"
    known: Identity = field(default=UNKNOWN, compare=False)
    address: str | None = field(default=None, compare=False, repr=False)

    @property
    def name(self) -> str:
        """The location as records show it: bytes that are not UTF-8 are written `\\xNN`."""
        return os.fsencode(self.location).decode("utf-8", "backslashreplace")

    @classmethod
    def named(cls, name: str) -> "Source":
        """Path whose `name` this is. Raises ValueError for a name that no path has.

        A backslash, `x` and two digits in a file's own name cannot be distinguished from the byte.
        """
        if not name or "\0" in name:
            raise ValueError(f"`{name}` is no source")
        path = _ESCAPED_BYTE.sub(lambda match: bytes.fromhex(match[1].decode()), name.encode())
        # Text after unescaping was text before: the escapes are the file's own.
        return cls(os.fsdecode(path if path.decode("utf-8", "backslashreplace") == name else name.encode()))


STDIN = Source("-", "stdin")


MOST_STREAMED = 1_000_000_000
"""Bytes of one image from a pipe or standard input, whose length is unknown."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """An image whose bytes are in memory, because only the main process can get them: a URL or standard input."""

    source: Source
    data: bytes
    identity: Identity = field(default=UNKNOWN, compare=False)


def source_of(item: Source | Fetched) -> Source:
    return item.source if isinstance(item, Fetched) else item


@dataclass(frozen=True, slots=True)
class Score:
    """One label's score, the shortest decimal that gives the model's float32 back: in [0, 1], unless a regression's."""

    label: str
    index: int
    score: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """The scores of one image, best label first; `reused` if taken from an identical image.

    A row has room for `columns` labels, at least for its own.
    """

    source: Source
    scores: tuple[Score, ...]
    identity: Identity = field(default=UNKNOWN, compare=False)
    reused: bool = field(default=False, compare=False)
    columns: int = field(default=1, compare=False, repr=False)

    @property
    def label(self) -> str | None:
        """The best label, or None where every score was below the threshold."""
        return self.scores[0].label if self.scores else None

    @property
    def score(self) -> float | None:
        """The score of the best label, or None where every score was below the threshold."""
        return self.scores[0].score if self.scores else None

    def as_dict(self) -> dict[str, Any]:
        """The JSON object of its line in a JSON Lines file."""
        scores = [{"label": score.label, "index": score.index, "score": score.score} for score in self.scores]
        return {"source": self.source.name, "status": "ok", "predictions": scores}

    def as_row(self) -> dict[str, str | int | float | None]:
        """The columns of its row in a CSV file; None for an empty field."""
        values = [value for score in self.scores for value in (score.label, score.index, score.score)]
        return _row(max(self.columns, len(self.scores)), [self.source.name, "ok"], values, [None, None])


@dataclass(frozen=True, slots=True)
class Embedding:
    """The features of one image, of shape (hidden,) or (patches, hidden); `reused` as in a prediction."""

    source: Source
    features: "np.ndarray[Any, Any]" = field(compare=False)
    identity: Identity = field(default=UNKNOWN, compare=False)
    reused: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Failure:
    """The error of one image that failed; `code` is one of `errors.ERROR_CODES`, `message` a single line.

    A row has room for the `columns` labels of its run's predictions.
    """

    source: Source
    code: str
    message: str
    identity: Identity = field(default=UNKNOWN, compare=False)
    columns: int = field(default=1, compare=False, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """The JSON object of its line in a JSON Lines file."""
        return {
            "source": self.source.name,
            "status": "error",
            "error": {"code": self.code, "message": self.message},
        }

    def as_row(self) -> dict[str, str | int | float | None]:
        """The columns of its row in a CSV file; None for an empty field."""
        return _row(self.columns, [self.source.name, "error"], [], [self.code, self.message])


class Skipped(Counter[str]):
    """Entries that walks skipped, counted by reason; files of no image type also by suffix."""

    def __init__(self) -> None:
        super().__init__()
        self.suffixes: Counter[str] = Counter()

    def add_other_type(self, name: str) -> None:
        """Count a file that is of no image type."""
        self[OTHER_TYPE] += 1
        suffix = os.path.splitext(name)[1].lower()
        if len(suffix) < 2:  # a dot at the end is none either
            suffix = "no suffix"
        elif len(suffix) > _LONGEST_SUFFIX:
            suffix = f"{suffix[:_LONGEST_SUFFIX]}…"
        known = suffix in self.suffixes or len(self.suffixes) < _MOST_SUFFIXES
        self.suffixes[suffix if known else _OTHERS] += 1

    def text(self) -> str:
        """Counts and reasons, commonest first, suffixes last: `3 hidden, 12 not an image type: .mp4 7, .xmp 5`."""
        reasons = [f"{count} {reason}" for reason, count in self.most_common() if reason != OTHER_TYPE]
        if self[OTHER_TYPE]:
            reasons.append(f"{self[OTHER_TYPE]} {OTHER_TYPE}{self._commonest_suffixes()}")
        return ", ".join(reasons)

    def _commonest_suffixes(self) -> str:
        named = ((suffix, count) for suffix, count in self.suffixes.items() if suffix != _OTHERS)
        shown = sorted(named, key=lambda each: (-each[1], each[0]))[:_SUFFIXES_SHOWN]
        others = self.suffixes.total() - sum(count for _, count in shown)
        parts = [f"{printable(Source(suffix).name)} {count}" for suffix, count in shown]
        return f": {', '.join(parts + [f'{_OTHERS} {others}'] * bool(others))}" if parts else ""


Record: TypeAlias = Prediction | Failure

ResultRecord = TypeVar("ResultRecord", bound=Prediction | Embedding)
"""The record of an image that succeeded, of one kind in a run."""

Found: TypeAlias = Source | Failure
"""Result of discovery: an image to open, or a folder that could not be read."""


SCORE_COLUMNS = ("label", "index", "score")


def column_names(labels: int) -> list[str]:
    """The names of the columns where a row has room for so many labels."""
    scores = [f"{name}{'' if rank == 1 else f'_{rank}'}" for rank in range(1, labels + 1) for name in SCORE_COLUMNS]
    return ["source", "status", *scores, "error_code", "error_message"]


def _row(
    labels: int,
    before: Sequence[str | None],
    scores: Sequence[str | int | float],
    after: Sequence[str | None],
) -> dict[str, str | int | float | None]:
    empty = [None] * (labels * len(SCORE_COLUMNS) - len(scores))
    return dict(zip(column_names(labels), [*before, *scores, *empty, *after], strict=True))


def composed(text: str) -> str:
    """The text in Unicode's normal form C, in which names that read alike are equal, wherever they were written."""
    return unicodedata.normalize("NFC", text)


def printable(text: str) -> str:
    """The text with control and format characters, which could affect a terminal, written as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
