"""Layers of our own in C++, which take seconds to compile: whole ones for AMX and AVX512, fused passes for others."""

import logging
from collections.abc import Callable, Mapping
from math import ceil
from typing import Any

from beitcli.model.checkpoint import Checkpoint, square_side
from beitcli.model.cpu.fused import use_fused_passes
from beitcli.model.cpu.kept_layers import KeptLayers
from beitcli.model.cpu.layers import fits_layers, instructions_for, use_layers
from beitcli.model.cpu.toolchain import compiler
from beitcli.model.network import Beit, Output
from beitcli.model.preprocessing import Preprocessing
from beitcli.model.runtime import INT8, Runtime

log = logging.getLogger(__name__)

WORTH = 1_500.0
"""GFLOP of a run for which a compiler may take a second or two, once for all models.

Such a run repays half of it with AMX, and in int8. With AVX512 that takes three times as many images in fp32, and seven
times as many in bf16.
"""

LOOK_AHEAD = 2000
"""Most images that are counted before that decision."""

EXPECTED = 10
"""Factor from `LOOK_AHEAD` images to the expected number of images in such a run."""


def has_own_layers(runtime: Runtime) -> bool:
    """True if a compiled BEiT runs by such layers, and not by those of torch's compiler.

    In fp32 it does with AVX512; without, torch's products leave nothing to gain.
    """
    return runtime.device == "cpu" and (runtime.dtype in (INT8, "bf16") or instructions_for(runtime) is not None)


def use_own_layers(network: Beit, runtime: Runtime) -> None:
    """Replace the layers of a network in the runtime's dtype; where that is impossible, keep them and log a notice."""
    instructions = instructions_for(runtime)
    if instructions and fits_layers(network):
        use_layers(network, instructions)
    elif runtime.dtype == "fp32":
        log.info("the network runs uncompiled: in fp32 that needs heads of 64, GELU, and one output for all layers")
    else:
        use_fused_passes(network)


def kept_layers(
    checkpoint: Checkpoint, preprocessing: Preprocessing, runtime: Runtime, output: Output
) -> KeptLayers | None:
    """The place in the cache for the layers of a compiled network of 8 bits; None where it has none."""
    instructions = instructions_for(runtime)
    if not (runtime.compiled and runtime.dtype == INT8 and instructions and output != "layers"):
        return None
    try:
        return KeptLayers(checkpoint, preprocessing.size, output, instructions)
    except OSError:  # `use_own_layers` says why
        return None


def is_worth_compiling(
    checkpoint: Checkpoint, preprocessing: Preprocessing, runtime: Runtime, count: Callable[[int], int] | None
) -> bool:
    """True if a run should compile such layers first. `count(n)` gives the number of its images, at most n.

    Without it the number is unknown and may be large.
    """
    if not has_own_layers(runtime) or (runtime.dtype == "fp32" and not _has_usual_layers(checkpoint.config)):
        return False
    needed = ceil(WORTH / max(_gflop_of(checkpoint.config, preprocessing), 1e-6))
    counted = min(needed, LOOK_AHEAD)
    if needed > EXPECTED * LOOK_AHEAD or (count and count(counted) < counted):
        return False
    if compiler() is None:
        log.debug("the network runs uncompiled: no C++ compiler")
        return False
    return True


def _has_usual_layers(config: Mapping[str, Any]) -> bool:
    """True if a config has heads of 64 and GELU, as all published BEiTs have."""
    heads, hidden = config.get("num_attention_heads", 12), config.get("hidden_size", 768)
    return (hidden, config.get("hidden_act", "gelu")) == (64 * heads, "gelu")


def _gflop_of(config: Mapping[str, Any], preprocessing: Preprocessing) -> float:
    """GFLOP for one image in the network's layers: two for each weight and token, and those of attention.

    0 for an invalid config, which the network reports later.
    """
    try:
        height, width = preprocessing.size
        patch, hidden = square_side(config, "patch_size", 16), config.get("hidden_size", 768)
        tokens = 1 + (height // patch) * (width // patch)
        weights = 4 * hidden**2 + 2 * hidden * config.get("intermediate_size", 3072)
        return float(2e-9 * tokens * (weights + 2 * tokens * hidden) * config.get("num_hidden_layers", 12))
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0
