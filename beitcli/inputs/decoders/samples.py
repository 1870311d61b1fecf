"""Samples of any kind of number -> 8 bits, by the rules that hold for every format."""

from typing import Any, TypeAlias

import numpy as np

Samples: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"


def to_8_bits(values: Samples) -> Samples:
    """Grey levels: 8 bits as they are, 16 bits divided by 257, all else so or stretched from its range."""
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind == "f":
        return floats_to_8_bits(values)
    if values.dtype == np.uint16:
        return _words(values)
    low, high = int(values.min()), int(values.max())
    return _words(values) if low >= 0 and high <= 65535 else _stretched(values.astype(np.float64), low, high)


def floats_to_8_bits(values: Samples) -> Samples:
    """Grey levels, black at 0 and white at 1 if they lie there, else from their range; the infinite are black."""
    finite = np.isfinite(values)
    exact = np.where(finite, values, 0.0).astype(np.float64)
    low, high = (float(exact[finite].min()), float(exact[finite].max())) if finite.any() else (0.0, 1.0)
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    return _stretched(np.where(finite, exact, low), low, high)


def _words(values: Samples) -> Samples:
    """65535 becomes 255, so v becomes v / 257, rounded; for 16 bits this is the same, and faster than to divide."""
    return ((values.astype(np.uint32) * 255 + 32895) >> 16).astype(np.uint8)


def _stretched(values: Samples, low: float, high: float) -> Samples:
    """Black at `low`, white at `high`."""
    if not np.isfinite(high - low):  # doubles at both ends of their range
        values, low, high = values / 4, low / 4, high / 4
    grey: Samples = np.rint((values - low) * (255.0 / (high - low or 1.0)))
    return grey.astype(np.uint8)
