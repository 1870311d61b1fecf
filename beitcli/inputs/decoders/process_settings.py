"""Settings of the whole process that decoders need: warnings dropped, Pillow's limit set; any number of threads."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

from PIL import Image

_DECODERS = r"(PIL|beitcli|numpy|pillow_heif|pillow_jxl|rawpy|simplejpeg)(\.|$)"
"""Modules whose warnings are about one image: its record says what matters."""


class _Settings:
    """The threads that decode now, and the settings from before the first of them."""

    lock = RLock()
    threads = 0
    max_pixels: int | None
    filters: "warnings.catch_warnings[None]"


def _forget_threads() -> None:
    """Start anew in a forked process, which has none of the other threads."""
    _Settings.lock, _Settings.threads = RLock(), 0


os.register_at_fork(after_in_child=_forget_threads)


@contextmanager
def decoder_settings() -> Iterator[None]:
    """Drop the warnings of decoders, and raise DecompressionBombWarning, until no thread decodes any more."""
    with _Settings.lock:
        _Settings.threads += 1
        if _Settings.threads == 1:
            _Settings.max_pixels = Image.MAX_IMAGE_PIXELS
            _Settings.filters = warnings.catch_warnings()
            _Settings.filters.__enter__()
            warnings.filterwarnings("ignore", module=_DECODERS)
            warnings.simplefilter("error", Image.DecompressionBombWarning)
    try:
        yield
    finally:
        with _Settings.lock:
            _Settings.threads -= 1
            if _Settings.threads == 0:
                _Settings.filters.__exit__(*sys.exc_info())
                Image.MAX_IMAGE_PIXELS = _Settings.max_pixels


def limit_pixels(max_pixels: int) -> None:
    """Limit the frames that decoders find inside a file; among several threads, the highest limit counts."""
    with _Settings.lock:
        alone = _Settings.threads <= 1
        Image.MAX_IMAGE_PIXELS = max_pixels if alone else max(max_pixels, Image.MAX_IMAGE_PIXELS or 0)
