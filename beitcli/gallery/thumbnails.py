"""Images -> thumbnails: small WebP files, each within a few kilobytes, made by the ordinary decoder in parallel."""

import io
from collections.abc import Generator, Iterable
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np
from PIL import Image
from PIL.Image import Resampling

from beitcli.inputs.decode import Decoding, Pixels
from beitcli.inputs.fetch import FetchLimits, fetch
from beitcli.inputs.loader import Loader
from beitcli.records import Failure, Source

SIDE = 256
"""Pixels of the longer side, at most."""

MOST_BYTES = 8_800
"""Bytes of one thumbnail, at most: two thousand of them in base64 leave room for their records in 25 MB."""

_ATTEMPTS = ((SIDE, 80), (SIDE, 65), (SIDE, 45), (SIDE, 25), (192, 25), (128, 20), (64, 10))
"""Sides and qualities to try until a thumbnail is small enough; the last one of any image is."""

_LENGTH = 4  # bytes that hold the number of the others


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """The encoded thumbnail of an image, and the digest of the image's own bytes."""

    source: Source
    data: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class ThumbnailEncoder:
    """RGB image -> its thumbnail as WebP, behind its length and padded to one shape."""

    shape: tuple[int, ...] = (_LENGTH + MOST_BYTES,)
    dtype: str = "uint8"

    def __call__(self, image: Image.Image) -> Pixels:
        data = next(filter(_fits, (_encoded(image, *attempt) for attempt in _ATTEMPTS)))
        padded = len(data).to_bytes(_LENGTH, "big") + data + bytes(MOST_BYTES - len(data))
        return np.frombuffer(padded, np.uint8)


def _fits(data: bytes) -> bool:
    return len(data) <= MOST_BYTES


def _encoded(image: Image.Image, side: int, quality: int) -> bytes:
    small = image.copy()
    small.thumbnail((side, side), Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "WEBP", quality=quality)
    return stream.getvalue()


def thumbnails(
    sources: Iterable[Source], decoding: Decoding, fetching: FetchLimits, workers: int
) -> Generator[Thumbnail | Failure, None, None]:
    """The thumbnail of each image or its failure, in order, by so many decoding processes."""
    decoding = replace(decoding, scaled_to=(SIDE, SIDE), digest=True)
    fetched = fetch(sources, fetching, lambda _: None)
    with Loader(fetched, ThumbnailEncoder(), decoding, workers) as loader:
        for item in loader:
            if isinstance(item, Failure):
                yield item
                continue
            packed = item.pixels.numpy().tobytes()
            data = packed[_LENGTH : _LENGTH + int.from_bytes(packed[:_LENGTH], "big")]
            yield Thumbnail(item.source, data, item.identity.digest or sha256(data).digest())
