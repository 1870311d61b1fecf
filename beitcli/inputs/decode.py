"""Bytes -> one upright RGB picture of 8 bits a channel, or a coded error.

This is the one place that catches every exception: Pillow's decoders answer hostile bytes with OSError, SyntaxError,
ValueError, TypeError, NotImplementedError, MemoryError, struct.error and more. Each becomes a code of
`errors.ERROR_CODES`; none is lost, because it becomes that picture's record.
"""

import errno
import hashlib
import io
import os
import signal
import stat
import struct
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import BinaryIO, Protocol, TypeAlias

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.Image import Transpose

from beitcli.errors import ERROR_CODES, PictureError
from beitcli.inputs.formats import FORMATS, REFUSED
from beitcli.inputs.sources import NO_FILE
from beitcli.records import MOST_STREAMED, UNKNOWN, Failure, Fetched, Identity, Source, printable, source_of

LARGE_PIXELS = 50_000_000
"""Pictures above this size are decoded one at a time: several at once would take a small machine's memory."""

_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")

_UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation (Exif 2.3, tag 0x0112)."""

_ORIENTATION_TAG = 0x0112
_SAMPLE_FORMAT_TAG = 339

_UNSUPPORTED = ("unsupported", "not supported", "not been built in", "unknown pixel mode")
_TRUNCATED = ("truncated", "end of file", "not enough", "unexpected end", "requires a buffer", "incomplete")


@dataclass(frozen=True, slots=True)
class Decoding:
    """How pictures are read: what one may cost in pixels and seconds (0: no limit), and what is left out or added.

    `scaled_to` (height, width) lets JPEG be decoded at a fraction of its size, never below these sides. With `digest`
    the bytes of every picture that could be read are digested.
    """

    max_pixels: int = 200_000_000
    seconds: float = 60.0
    scaled_to: tuple[int, int] | None = None
    digest: bool = False


Pixels: TypeAlias = np.ndarray
Outcome: TypeAlias = tuple[Pixels, Identity] | Failure
"""What becomes of a picture: the pixels that the network wants, and whose they are, or why there are none."""


class Preprocess(Protocol):
    """What turns an RGB picture into pixels of this shape and dtype; it is sent to other processes, so it pickles."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> str: ...

    def __call__(self, picture: Image.Image) -> Pixels: ...


def outcome(
    item: Source | Fetched, preprocess: Preprocess, decoding: Decoding, large_turn: AbstractContextManager[object]
) -> Outcome:
    """The picture as pixels, or its failure, either with the identity of the bytes that were read. Never raises.

    A picture that takes longer than `decoding.seconds` ends the process by SIGALRM: nothing less interrupts C.
    """
    identity = item.identity if isinstance(item, Fetched) else UNKNOWN
    try:
        with coded_errors(), _time_limit(decoding.seconds), opened(item) as stream:
            before = _file_identity(stream)
            identity = before or identity
            pixels = preprocess(decode(stream, decoding, large_turn))
            if decoding.digest:
                identity = replace(identity, digest=_digest(stream))
            if before != _file_identity(stream):  # somebody is writing it: what was read is no version of it
                identity = UNKNOWN
            return pixels, identity
    except PictureError as error:
        return Failure(source_of(item), error.code, str(error), identity)


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


def decode(stream: BinaryIO, decoding: Decoding, large_turn: AbstractContextManager[object]) -> Image.Image:
    """The picture's first frame, upright, RGB, 8 bits a channel; transparency lies over white.

    `large_turn` is held while a picture of more than `LARGE_PIXELS` is decoded; a time limit stands still until it
    comes. Raises PictureError, and nothing else.
    """
    with coded_errors():
        image = _open(stream, decoding.max_pixels)
        if decoding.scaled_to:
            height, width = decoding.scaled_to
            image.draft(None, (height, width) if _orientation(image) > 4 else (width, height))
        with _paused(large_turn) if image.width * image.height > LARGE_PIXELS else nullcontext():
            image.load()
            return _rgb(_upright(image))


@contextmanager
def coded_errors() -> Iterator[None]:
    """Turns whatever is raised inside into a PictureError, and drops the warnings of decoders."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except PictureError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError("too_large", f"more than {Image.MAX_IMAGE_PIXELS} pixels (--max-pixels)") from error
    except Exception as error:
        message = " ".join(str(error).split()) or "no reason given"
        raise PictureError(_code(error), printable(f"{message} ({type(error).__name__})"[:300])) from error


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
    """The picture's bytes as a stream that can go back. Raises PictureError where there are none."""
    if isinstance(item, Fetched):
        yield io.BytesIO(item.data)
        return
    try:
        stream = open(item.location, "rb")  # noqa: SIM115  # closed below
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the name
        raise PictureError("not_found", ERROR_CODES["not_found"]) from None
    except IsADirectoryError:
        raise PictureError("not_an_image", NO_FILE) from None
    with stream:
        yield stream if stream.seekable() else _buffered(stream)


def _buffered(stream: BinaryIO) -> BinaryIO:
    data = stream.read(MOST_STREAMED + 1)
    if len(data) > MOST_STREAMED:
        raise PictureError("too_large", f"a pipe brings more than {MOST_STREAMED} bytes")
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
def _paused(turn: AbstractContextManager[object]) -> Iterator[None]:
    """Takes the turn; the time limit stands still until it comes."""
    left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
    with turn:
        signal.setitimer(signal.ITIMER_REAL, left)
        yield


def _open(stream: BinaryIO, max_pixels: int) -> Image.Image:
    """The picture with only its header read."""
    prefix = stream.read(64)
    stream.seek(0)
    if not prefix:
        raise PictureError("empty_file", "there are no bytes")
    for name, signatures in REFUSED.items():
        if prefix.startswith(signatures):
            raise PictureError("unsupported", f"{name} files are not opened")
    if prefix[4:8] == b"ftyp" and prefix[8:12] in _HEIC_BRANDS and b"avif" not in prefix:
        _allow_heif()
    Image.init()
    Image.MAX_IMAGE_PIXELS = max_pixels  # for the frames that decoders find inside a file
    try:
        image = Image.open(stream, formats=[name for name in FORMATS if name in Image.OPEN])
    except UnidentifiedImageError:
        raise _unidentified(stream, prefix) from None
    _scale_transparency(image)
    if image.width * image.height > max_pixels:
        raise PictureError(
            "too_large", f"{image.width} × {image.height} pixels are more than {max_pixels} (--max-pixels)"
        )
    return image


def _scale_transparency(image: Image.Image) -> None:
    """A PNG's clear colour is written in the file's depth, but Pillow compares it in 8 bits."""
    clear, raw = image.info.get("transparency"), None
    if tiles := getattr(image, "tile", None):
        raw = tiles[0][3]
    if image.format == "PNG" and isinstance(clear, (int, tuple)):
        if raw == "RGB;16B" and isinstance(clear, tuple):
            image.info["transparency"] = tuple(v >> 8 for v in clear)
        elif raw in ("L;2", "L;4"):
            image.info["transparency"] = clear * (85 if raw == "L;2" else 17)


def _allow_heif() -> None:
    try:
        import pillow_heif
    except ImportError:
        hint = "HEIC pictures need the extra `heif`: pip install 'beitcli[heif]'"
        raise PictureError("unsupported", hint) from None
    pillow_heif.register_heif_opener()


def _unidentified(stream: BinaryIO, prefix: bytes) -> PictureError:
    """`Image.open` keeps the reasons to itself: asks the format that the first bytes name."""
    for name in FORMATS:
        driver, accepts = Image.OPEN.get(name, (None, None))
        try:
            accepted = accepts and accepts(prefix) is True
        except (IndexError, struct.error):  # fewer bytes than a signature has
            continue
        if driver and accepted:
            stream.seek(0)
            driver(stream, "")  # raises what `Image.open` kept to itself
            return PictureError("corrupt", f"begins as {name} but its header cannot be read")
    return PictureError("not_an_image", "not a picture in any known format")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # unreadable EXIF says nothing about the pixels
        return 1


def _upright(image: Image.Image) -> Image.Image:
    orientation = _orientation(image)
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return _grey16(np.asarray(image), image.info.get("transparency"))
    if image.mode == "I":
        values = np.asarray(image)
        unsigned = getattr(image, "tag_v2", {}).get(_SAMPLE_FORMAT_TAG) == (1,)  # Pillow reads them as signed
        return _grey_integers(values.view(np.uint32) if unsigned else values)
    if image.mode == "F":
        return _grey_floats(np.asarray(image))
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        return _over_white(image.convert("RGBA"))
    return image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    if image.getchannel("A").getextrema() == (255, 255):
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _grey16(values: np.ndarray, transparent: object) -> Image.Image:
    """65535 becomes 255, so v becomes v / 257, rounded."""
    grey = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def _grey_integers(values: np.ndarray) -> Image.Image:
    low, high = int(values.min()), int(values.max())
    if low >= 0 and high <= 65535:
        return _grey16(values, None)
    return _stretched(values.astype(np.float64), low, high)


def _grey_floats(values: np.ndarray) -> Image.Image:
    finite = np.isfinite(values)
    exact = np.where(finite, values, 0.0).astype(np.float64)
    low, high = (float(exact[finite].min()), float(exact[finite].max())) if finite.any() else (0.0, 1.0)
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    return _stretched(np.where(finite, exact, low), low, high)


def _stretched(values: np.ndarray, low: float, high: float) -> Image.Image:
    """Grey from black at `low` to white at `high`."""
    grey = np.rint((values - low) * (255.0 / (high - low or 1.0)))
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
