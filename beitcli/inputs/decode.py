"""Bytes -> one upright RGB image of 8 bits a channel, or a coded error.

This is the one place that catches every exception: Pillow's decoders react to hostile bytes with OSError, SyntaxError,
ValueError, TypeError, NotImplementedError, MemoryError, struct.error and more. Each becomes a code of
`errors.ERROR_CODES`; none is lost, because it becomes that image's record.

Pillow decides which formats are opened. `decoders` detect the damage that its decoders ignore.
"""

import errno
import hashlib
import io
import os
import signal
import stat
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import BinaryIO, Protocol, TypeAlias

import numpy as np
from PIL import Image
from PIL.Image import Transpose

from beitcli.errors import ERROR_CODES, ImageError
from beitcli.inputs.decoders.opening import check_size, open_header, orientation
from beitcli.inputs.decoders.process_settings import decoder_settings
from beitcli.inputs.decoders.samples import to_8_bits
from beitcli.inputs.sources import NO_FILE
from beitcli.records import MOST_STREAMED, UNKNOWN, Failure, Fetched, Identity, Source, printable, source_of

LARGE_PIXELS = 50_000_000
"""Images above this size are decoded one at a time: several at once would take a small machine's memory."""

_UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
"""Transposition that undoes each EXIF orientation (Exif 2.3, tag 0x0112)."""

_UNSUPPORTED = ("unsupported", "not supported", "not been built in", "unknown pixel mode")
_TRUNCATED = (
    *("truncated", "end of file", "not enough", "unexpected end", "requires a buffer", "incomplete", "reached eof"),
    *("not large enough", "no more images", "index out of range", "buffer overrun", "cannot read full"),
)


@dataclass(frozen=True, slots=True)
class Decoding:
    """Decoding options: limits in pixels and seconds (0: no limit), scaled decoding, digests.

    `scaled_to` (height, width) lets JPEG be decoded at a fraction of its size, never below these sides. `digest` adds
    the SHA-256 of the bytes of every image that could be read.
    """

    max_pixels: int = 200_000_000
    seconds: float = 60.0
    scaled_to: tuple[int, int] | None = None
    digest: bool = False


Pixels: TypeAlias = np.ndarray
Outcome: TypeAlias = tuple[Pixels, Identity] | Failure
"""Result of one image: the pixels that the network expects and their file's identity, or the failure."""


class Preprocess(Protocol):
    """Interface of preprocessing: RGB image -> pixels of this shape and dtype. Pickled for other processes."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> str: ...

    def __call__(self, image: Image.Image) -> Pixels: ...


def outcome(
    item: Source | Fetched, preprocess: Preprocess, decoding: Decoding, large_lock: AbstractContextManager[object]
) -> Outcome:
    """The image as pixels, or its failure, either with the identity of the bytes that were read. Never raises.

    An image that takes longer than `decoding.seconds` ends the process by SIGALRM: nothing less interrupts C.
    """
    identity = item.identity if isinstance(item, Fetched) else UNKNOWN
    try:
        with coded_errors(), _time_limit(decoding.seconds), opened(item) as stream:
            before = _file_identity(stream)
            identity = before or identity
            image, count = _decoded(stream, decoding, large_lock)
            pixels, identity = preprocess(image), replace(identity, pixels=count)
            if decoding.digest:
                identity = replace(identity, digest=_digest(stream))
            if before != _file_identity(stream):  # still being written: the bytes belong to no version
                identity = UNKNOWN
            return pixels, identity
    except ImageError as error:
        return Failure(source_of(item), error.code, str(error), identity)


def outcome_of_image(source: Source, image: Image.Image, preprocess: Preprocess, decoding: Decoding) -> Outcome:
    """As `outcome`, for an image that Pillow has opened already, and perhaps not read. Never raises."""
    try:
        with coded_errors():
            check_size(image.width, image.height, decoding.max_pixels)
            return preprocess(_upright_rgb(image)), UNKNOWN
    except ImageError as error:
        return Failure(source, error.code, str(error))


def _file_identity(stream: BinaryIO) -> Identity | None:
    try:
        status = os.fstat(stream.fileno())
    except OSError:  # bytes in memory
        return None
    return Identity.of_file(status) if stat.S_ISREG(status.st_mode) else None


def _digest(stream: BinaryIO) -> bytes:
    stream.seek(0)
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest.digest()


def decode(stream: BinaryIO, decoding: Decoding, large_lock: AbstractContextManager[object]) -> Image.Image:
    """The image's first frame, upright, RGB, 8 bits a channel; transparency lies over white.

    `large_lock` is held while an image of more than `LARGE_PIXELS` is decoded; the time limit is paused until it is
    acquired. Raises only ImageError.
    """
    with coded_errors():
        return _decoded(stream, decoding, large_lock)[0]


def _decoded(
    stream: BinaryIO, decoding: Decoding, large_lock: AbstractContextManager[object]
) -> tuple[Image.Image, int]:
    """The image as `decode` gives it, and the lowest limit of pixels under which it does."""
    header = open_header(stream, decoding.max_pixels, decoding.scaled_to)
    is_large = header.width * header.height > LARGE_PIXELS
    with _paused(large_lock, decoding.seconds) if is_large else nullcontext():
        image = _upright_rgb(header.load())
    return image, max(header.pixels, image.width * image.height)


@contextmanager
def coded_errors() -> Iterator[None]:
    """Convert every exception raised inside to an ImageError; warnings of decoders are dropped."""
    with decoder_settings():
        try:
            yield
        except ImageError:
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise ImageError("too_large", f"more than {Image.MAX_IMAGE_PIXELS} pixels (--max-pixels)") from error
        except Exception as error:
            message = " ".join(str(error).split()) or "no reason given"
            raise ImageError(_code(error), printable(f"{message} ({type(error).__name__})"[:300])) from error


def _code(error: Exception) -> str:
    message = str(error).lower()
    if isinstance(error, MemoryError):
        return "out_of_memory"
    if isinstance(error, PermissionError):
        return "permission"
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # EINVAL: a decoder's seek before byte 0
        return "io_error"
    if isinstance(error, NotImplementedError) or any(sign in message for sign in _UNSUPPORTED):
        return "unsupported"
    if isinstance(error, (EOFError, struct.error)):
        return "truncated"
    if any(sign in message for sign in _TRUNCATED):
        return "truncated"
    return "corrupt"


@contextmanager
def opened(item: Source | Fetched) -> Iterator[BinaryIO]:
    """The image's bytes as a seekable stream. Raises ImageError where there are none."""
    if isinstance(item, Fetched):
        yield io.BytesIO(item.data)
        return
    try:
        stream = open(item.location, "rb")  # noqa: SIM115  # closed below
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the name
        raise ImageError("not_found", ERROR_CODES["not_found"]) from None
    except IsADirectoryError:
        raise ImageError("not_an_image", NO_FILE) from None
    with stream:
        yield stream if stream.seekable() else _buffered(stream)


def _buffered(stream: BinaryIO) -> BinaryIO:
    data = stream.read(MOST_STREAMED + 1)
    if len(data) > MOST_STREAMED:
        raise ImageError("too_large", f"a pipe brings more than {MOST_STREAMED} bytes")
    return io.BytesIO(data)


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    if not seconds:
        yield
        return
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def _paused(lock: AbstractContextManager[object], seconds: float) -> Iterator[None]:
    """Hold the lock; the time limit, if there is one, is paused until it is acquired."""
    if not seconds:
        with lock:
            yield
        return
    left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
    with lock:
        signal.setitimer(signal.ITIMER_REAL, left)
        yield


def _upright_rgb(image: Image.Image) -> Image.Image:
    turn = _UPRIGHT.get(orientation(image))
    return _rgb(image if turn is None else image.transpose(turn))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return _opaque_grey(np.asarray(image).astype(np.uint16), image.info.get("transparency"))
    if image.mode in ("I", "F"):
        return Image.fromarray(to_8_bits(np.asarray(image))).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        return _over_white(image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    if image.getchannel("A").getextrema() == (255, 255):
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _opaque_grey(values: np.ndarray, transparent: object) -> Image.Image:
    grey = to_8_bits(values)
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey).convert("RGB")
