"""Camera RAW: the embedded preview, through LibRaw from the extra `raw`."""

from typing import BinaryIO

from beitcli.errors import ImageError
from beitcli.inputs.decoders.tiff_tags import first_full_directory

_SIGNATURES = {
    b"FUJIFILMCCD-RAW": "Fujifilm RAF",
    b"IIU\0": "Panasonic RW2",
    b"IIRO": "Olympus ORF",
    b"IIRS": "Olympus ORF",
    b"MMOR": "Olympus ORF",
    b"FOVb": "Sigma X3F",
    b"\0MRM": "Minolta MRW",
}
_SENSOR = {32803: "Camera RAW (TIFF)", 34892: "Linear DNG"}
"""Photometric interpretations of sensor data (TIFF/EP, DNG 1.7)."""

_PHOTOMETRIC = 262

_TURNED = {3: 3, 5: 8, 6: 6}
"""EXIF orientations of LibRaw's flips, in which 5 is a quarter turn to the left and 6 one to the right."""


def kind(prefix: bytes) -> str | None:
    """The kind of RAW by its first bytes; None for other files and kinds that only TIFF tags identify."""
    if prefix[4:12] == b"ftypcrx ":
        return "Canon CR3"
    if prefix[6:14] == b"HEAPCCDR":
        return "Canon CRW"
    if prefix[:4] in (b"II*\0", b"MM\0*") and prefix[8:10] == b"CR":
        return "Canon CR2"
    return next((name for signature, name in _SIGNATURES.items() if prefix.startswith(signature)), None)


def tiff_kind(stream: BinaryIO) -> str | None:
    """The kind of RAW by the tags of a TIFF's full image, or None."""
    return _SENSOR.get(first_full_directory(stream).note(_PHOTOMETRIC, 0))


def preview(stream: BinaryIO, name: str) -> tuple[bytes, int]:
    """The preview as JPEG, and the EXIF orientation to give it where it has none of its own.

    Raises ImageError, `unsupported`, without the extra, or where there is no such preview.
    """
    try:
        import rawpy
    except ImportError:
        hint = f"{name} images need the extra `raw`: pip install 'beitcli[raw]'"
        raise ImageError("unsupported", hint) from None
    stream.seek(0)
    try:
        with rawpy.imread(stream) as image:
            found, flip = image.extract_thumb(), image.sizes.flip
    except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError, rawpy.LibRawFileUnsupportedError):
        raise ImageError("unsupported", f"{name} without a preview that can be read") from None
    if found.format != rawpy.ThumbFormat.JPEG:
        raise ImageError("unsupported", f"{name} whose preview is no JPEG")
    return bytes(found.data), _TURNED.get(flip, 1)
