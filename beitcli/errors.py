"""Errors, error codes and exit statuses.

BeitError            could not run                                    exit 1
├── UsageError       invalid options or inputs, or not possible here  exit 2
├── ModelError       a checkpoint is missing, broken or no classifier exit 1
├── DeviceError      the device failed in use                         exit 1
└── OutputError      the records cannot be written                    exit 1
    └── BusyError    another run has them in use                      exit 4
ImageError           one image failed: it becomes a record, never an exit
"""

import errno
from enum import IntEnum

MAKE_ROOM = "make room, then run it again"

ERROR_CODES = {
    "not_found": "no such file",
    "permission": "the file or folder may not be read",
    "io_error": "reading failed: a bad disk, a lost network share",
    "empty_file": "the file has no bytes",
    "not_an_image": "not an image in any known format, or a folder in a list",
    "truncated": "the image ends too early",
    "corrupt": "the image is damaged, or contradicts its own format",
    "too_large": "more pixels than `max_pixels=`, or more bytes than `url_max_bytes=`",
    "unsupported": "an image type that is not supported (EPS, 12-bit JPEG, HEIC without the extra `heif`, …)",
    "timeout": "longer than `decode_timeout=` or `url_timeout=`",
    "http_NNN": "the server responded with status NNN",
    "network": "no connection, a broken response, or a refused redirect",
    "decoder_crashed": "the process that decoded the image died",
    "out_of_memory": "decoding the image took more memory than is available",
    "worker_lost": "two workers of the run ended with the image, each alone with it",
}
"""Every code that an error record can carry, with its meaning; `http_NNN` stands for one code per HTTP status."""


class ExitStatus(IntEnum):
    """Exit status of the process, unless a signal ends it."""

    OK = 0
    FAILED = 1
    USAGE = 2
    SOME_FAILED = 3
    BUSY = 4


class BeitError(Exception):
    """A one-line message for the user, with an optional hint."""

    exit_status = ExitStatus.FAILED

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(BeitError):
    """Options or inputs that are invalid, or not possible on this machine."""

    exit_status = ExitStatus.USAGE


class ModelError(BeitError):
    """A checkpoint that is missing, broken or no classifier."""


class DeviceError(BeitError):
    """A device that failed in use."""


class OutputError(BeitError):
    """Records that cannot be written."""


class BusyError(OutputError):
    """An output that another run is writing, or whose ledger another program has open."""

    exit_status = ExitStatus.BUSY


def first_line(error: BaseException) -> str:
    """First line of an error's message that is not blank, or the error's type if there is none."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)


def hint_for(error: OSError) -> str | None:
    """Hint for an error raised while writing, or None."""
    return MAKE_ROOM if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else None


class ImageError(Exception):
    """One image that failed: `code` is a key of `ERROR_CODES` (or `http_404` and the like).

    The message is in files of records and in ledgers: a new wording would change files whose images have not changed.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
