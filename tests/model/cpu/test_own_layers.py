"""When a run compiles the layers of our own."""

import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from beitcli.model.checkpoint import Checkpoint, open_checkpoint
from beitcli.model.cpu.layers import instructions_for
from beitcli.model.cpu.own_layers import LOOK_AHEAD, is_worth_compiling
from beitcli.model.cpu.toolchain import compiler
from beitcli.model.preprocessing import Preprocessing, checkpoint_preprocessing
from beitcli.model.runtime import Runtime, has_avx512


@pytest.mark.skipif(compiler() is None, reason="no C++ compiler")
@pytest.mark.parametrize(
    "dtype", ["bf16", "int8", pytest.param("fp32", marks=pytest.mark.skipif(not has_avx512(), reason="no AVX512"))]
)
def test_some_images_of_a_large_model_are_worth_it(tiny_beit: Path, dtype: str) -> None:
    tiny = open_checkpoint(str(tiny_beit), None)
    sides = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    config = {**tiny.config, **sides, "image_size": 384, "patch_size": 16}
    large = Checkpoint("large", tiny.repository, tiny.folder, config, None, ())
    preprocessing = Preprocessing((384, 384), None, 2, 1 / 255, (0.5,) * 3, (0.5,) * 3)
    runtime = Runtime("cpu", dtype)

    def counter(images: int) -> Callable[[int], int]:
        return lambda most: min(images, most)

    small = checkpoint_preprocessing(tiny.processor, None)
    assert not is_worth_compiling(tiny, small, runtime, counter(LOOK_AHEAD))
    assert not is_worth_compiling(large, preprocessing, runtime, counter(3))
    assert is_worth_compiling(large, preprocessing, runtime, counter(4))
    assert is_worth_compiling(large, preprocessing, runtime, counter(LOOK_AHEAD))
    assert is_worth_compiling(large, preprocessing, runtime, None)
    assert not is_worth_compiling(large, preprocessing, Runtime("cuda", "bf16"), None)
    heads_of_128 = replace(large, config={**config, "num_attention_heads": 8})
    assert is_worth_compiling(heads_of_128, preprocessing, runtime, None) == (dtype != "fp32")


def test_without_a_compiler_nothing_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    demo = open_checkpoint("demo", None)
    preprocessing = checkpoint_preprocessing(demo.processor, None)
    assert not is_worth_compiling(demo, preprocessing, Runtime("cpu", "int8"), None)


AVX512 = dict.fromkeys(("avx512_bw", "avx512_dq", "avx512_vl", "avx512_bf16", "avx512_vnni"), True)
AMX = dict.fromkeys(("amx_tile", "amx_bf16", "amx_int8"), True)


@pytest.mark.skipif((platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="not by these instructions")
@pytest.mark.parametrize(
    ("capabilities", "is_permitted", "bf16", "int8"),
    [
        (AVX512 | AMX, True, "AMX", "AMX"),
        (AVX512 | AMX, False, "AVX512", "AVX512"),
        (AVX512, True, "AVX512", "AVX512"),
        (AVX512 | {"avx512_bf16": False}, True, None, "AVX512 without bf16"),
        (AVX512 | {"avx512_vnni": False}, True, None, None),
        ({}, True, None, None),
    ],
    ids=["AMX", "AMX that the system refuses", "AVX512", "without bf16", "without VNNI", "neither"],
)
def test_the_instructions_are_the_best_of_this_cpu(
    capabilities: dict[str, bool],
    is_permitted: bool,
    bf16: str | None,
    int8: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    monkeypatch.setattr(torch.cpu, "_init_amx", lambda: is_permitted, raising=False)
    assert [instructions_for(Runtime("cpu", dtype)) for dtype in ("bf16", "int8")] == [bf16, int8]
    in_fp32 = instructions_for(Runtime("cpu", "fp32"))
    assert in_fp32 == ("AVX512" if capabilities else None)
    demo = open_checkpoint("demo", None)
    counted = is_worth_compiling(demo, checkpoint_preprocessing(demo.processor, None), Runtime("cpu", "fp32"), None)
    assert counted == (in_fp32 is not None and compiler() is not None)
    assert instructions_for(Runtime("cuda", "bf16")) is None
