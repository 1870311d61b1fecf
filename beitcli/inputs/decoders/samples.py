"""Samples of any numeric type -> 8 bits, by the same rules for every format."""

from typing import Any, TypeAlias

import numpy as np

Samples: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"


def to_8_bits(values: Samples) -> Samples:
    """Grey levels: 8 bits unchanged, 16 bits divided by 257, others likewise if in range, else scaled."""
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind == "f":
        return floats_to_8_bits(values)
    if values.dtype == np.uint16:
        return _words(values)
    low, high = int(values.min()), int(values.max())
    return _words(values) if low >= 0 and high <= 65535 else _scaled(values.astype(np.float64), low, high)


def floats_to_8_bits(values: Samples) -> Samples:
    """Grey levels: black at 0 and white at 1 if all lie between, else scaled from their range; non-finite are black."""
    finite = np.isfinite(values)
    exact = np.where(finite, values, 0.0).astype(np.float64)
    low, high = (float(exact[finite].min()), float(exact[finite].max())) if finite.any() else (0.0, 1.0)
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    return _scaled(np.where(finite, exact, low), low, high)


def _words(values: Samples) -> Samples:
    """v / 257, rounded; exact for 16 bits, and faster than a division."""
    return ((values.astype(np.uint32) * 255 + 32895) >> 16).astype(np.uint8)


def _scaled(values: Samples, low: float, high: float) -> Samples:
    """Linear scaling with black at `low` and white at `high`."""
    if not np.isfinite(high - low):  # doubles at both ends of their range
        values, low, high = values / 4, low / 4, high / 4
    grey: Samples = np.rint((values - low) * (255.0 / (high - low or 1.0)))
    return grey.astype(np.uint8)
