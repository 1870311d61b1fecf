"""Relative position bias for fine-tuning, expanded and interpolated as in the paper's code (unilm/beit)."""

from collections.abc import Mapping

import numpy as np
import torch
from scipy.interpolate import make_interp_spline
from torch import Tensor

_TABLE = "relative_position_bias.relative_position_bias_table"
_SHARED = "beit.shared_position_bias.relative_position_bias_table"

_EXTRA = 3
"""Rows of a table that belong to the start token: to a patch, from a patch, to itself."""

_CUBIC = 3


def expanded(state: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """The weights with a table of its own for every layer in place of a shared one.

    Where layers have their own besides, they get the sum, which is what the network added.
    """
    state = dict(state)
    shared = state.pop(_SHARED, None)
    if shared is None:
        return state
    for name in (f"beit.layers.{layer}.{_TABLE}" for layer in range(layers)):
        state[name] = state[name] + shared if name in state else shared.clone()
    return state


def interpolated(table: Tensor, trained: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """The table for another grid of patches; the last three rows, which belong to the start token, stay.

    As `run_class_finetuning.py` does it: the trained distances are placed at the sums of a geometric sequence that
    begins with 1 and reaches the largest new distance, and a cubic spline for each head goes through them. So the bias
    of neighbours stays and that of far patches is spread; a linear interpolation of the whole would stretch all.
    """
    if grid == trained:
        return table
    height, width = (2 * side - 1 for side in trained)
    values = table[:-_EXTRA].double().numpy().reshape(height, width, -1)
    for axis, (before, now) in enumerate(zip(trained, grid, strict=True)):
        values = _resampled(values, axis, before, now)
    return torch.cat((torch.from_numpy(values).flatten(0, 1).to(table.dtype), table[-_EXTRA:]))


def _resampled(values: np.ndarray, axis: int, before: int, now: int) -> np.ndarray:
    places = _places(before - 1, now - 1)
    wanted = np.clip(np.arange(1.0 - now, now), places[0], places[-1])  # FITPACK, which the paper's code calls, clips
    resampled: np.ndarray = make_interp_spline(places, values, min(_CUBIC, len(places) - 1), axis=axis)(wanted)
    return resampled


def _places(steps: int, largest: int) -> np.ndarray:
    """Places of the distances from -steps to steps: 1, 1 + q, 1 + q + q², …, with the q that reaches `largest`."""
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        q = (low + high) / 2
        if (1 - q**steps) / (1 - q) > largest:
            high = q
        else:
            low = q
    sums = np.cumsum(q ** np.arange(steps))
    return np.concatenate((-sums[::-1], [0.0], sums))
