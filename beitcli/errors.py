"""What can go wrong, and how the process says so.

BeitError            could not run                                    exit 1
├── UsageError       what was asked for makes no sense here           exit 2
├── ModelError       a checkpoint is missing, broken or no classifier exit 1
├── DeviceError      the device failed in use                         exit 1
└── OutputError      the records cannot be written                    exit 1
PictureError         one picture has no answer: it becomes a record, never an exit
"""

import errno
from enum import IntEnum

MAKE_ROOM = "make room, then run it again"

ERROR_CODES = {
    "not_found": "no such file",
    "permission": "the file or folder may not be read",
    "io_error": "reading failed: a bad disk, a share that went away",
    "empty_file": "the file has no bytes",
    "not_an_image": "not a picture in any format that is known here, or a folder in a list",
    "truncated": "the image ends too early",
    "corrupt": "the image is damaged, or contradicts its own format",
    "too_large": "more pixels than `--max-pixels`, or more bytes than `--url-max-bytes`",
    "unsupported": "an image of a kind that is not opened here (EPS, 12-bit JPEG, HEIC without the extra `heif`, …)",
    "timeout": "longer than `--decode-timeout` or `--url-timeout`",
    "http_NNN": "the server answered with status NNN",
    "network": "no connection, a broken answer, or a redirect that is refused",
    "decoder_crashed": "the process that decoded the picture died",
    "out_of_memory": "decoding the picture took more memory than there is",
}
"""Every code that an error record can carry, with its meaning; `http_NNN` stands for one code per HTTP status."""


class ExitStatus(IntEnum):
    """How the process ends, unless a signal ends it."""

    OK = 0
    FAILED = 1
    USAGE = 2
    SOME_FAILED = 3


class BeitError(Exception):
    """A sentence for the user, and where there is one, the way out."""

    exit_status = ExitStatus.FAILED

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(BeitError):
    """What was asked for makes no sense, or not on this machine."""

    exit_status = ExitStatus.USAGE


class ModelError(BeitError):
    """A checkpoint that is missing, broken or no classifier."""


class DeviceError(BeitError):
    """A device that failed in use."""


class OutputError(BeitError):
    """Records that cannot be written."""


def first_line(error: BaseException) -> str:
    """First line of an error's message that says something, or the error's type where none does."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)


def way_out(error: OSError) -> str | None:
    """The hint for what writing has raised, where there is one."""
    return MAKE_ROOM if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else None


class PictureError(Exception):
    """One picture without an answer: `code` is a key of `ERROR_CODES` (or `http_404` and the like)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
