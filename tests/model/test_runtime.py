"""Device, dtype and batch size: as requested, or the best for this machine."""

import logging
import os
from pathlib import Path

import pytest
import torch

from beitcli.errors import ExitStatus, UsageError
from beitcli.model.cpu import cores
from beitcli.model.runtime import DTYPES, Runtime, choose_batch_size, choose_runtime

no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
no_mps = pytest.mark.skipif(torch.backends.mps.is_available(), reason="has an MPS device")
CPU_INFO = Path("/proc/cpuinfo")
DEVICES = ["cpu", "cuda", "cuda:1", "mps"]


@pytest.mark.parametrize(
    "device",
    [
        pytest.param("cuda", marks=no_cuda),
        pytest.param("cuda:0", marks=no_cuda),
        "cuda:99",
        pytest.param("mps", marks=no_mps),
    ],
)
def test_a_device_that_is_absent(device: str) -> None:
    with pytest.raises(UsageError, match=f"^`device={device}`: ") as raised:
        choose_runtime(device, "auto")
    assert raised.value.exit_status == ExitStatus.USAGE
    assert "`device=auto`" in str(raised.value.hint)


@pytest.mark.parametrize("device", ["auto", "cpu"])
@pytest.mark.parametrize("dtype", ["auto", *DTYPES])
def test_the_chosen_runtime_works(device: str, dtype: str) -> None:
    runtime = choose_runtime(device, dtype)
    assert dtype in ("auto", runtime.dtype)
    assert device == "auto" or runtime.device == device
    layer = torch.nn.Linear(4, 3).to(runtime.device, runtime.torch_dtype)
    assert layer(torch.ones(2, 4, device=runtime.device, dtype=runtime.torch_dtype)).isfinite().all()


@no_cuda
@no_mps
def test_auto_is_the_cpu_where_there_is_nothing_else() -> None:
    assert choose_runtime("auto", "auto") == choose_runtime("cpu", "auto")
    assert choose_runtime("auto", "fp32") == Runtime("cpu", "fp32")


@pytest.mark.skipif(not CPU_INFO.exists(), reason="knows no other source of the processor's instructions")
@pytest.mark.skipif(not hasattr(torch.cpu, "get_capabilities"), reason="this torch does not know the processor")
def test_auto_on_a_cpu_is_bf16_only_with_its_instructions() -> None:
    known = set(CPU_INFO.read_text().split())
    fast = {"amx_bf16", "bf16", "svebf16"} if "GenuineIntel" in known else {"avx512_bf16", "bf16", "svebf16"}
    assert choose_runtime("cpu", "auto").dtype == ("bf16" if fast & known else "fp32")


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ({"cpu_name": "Intel Xeon", "amx_bf16": True, "avx512_bf16": True}, "bf16"),
        ({"cpu_name": "Intel Xeon", "amx_bf16": False, "avx512_bf16": True}, "fp32"),
        ({"cpu_name": "AMD EPYC 9B14", "avx512_bf16": True}, "bf16"),
        ({"cpu_name": "AMD EPYC 7B12"}, "fp32"),
        ({"bf16": True}, "bf16"),
        ({}, "fp32"),
    ],
)
def test_auto_by_the_capabilities_of_the_cpu(
    capabilities: dict[str, object], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert choose_runtime("cpu", "auto").dtype == dtype


@pytest.mark.parametrize("dtype", ["auto", *DTYPES])
def test_one_notice_for_a_dtype_that_is_not_native(dtype: str, caplog: pytest.LogCaptureFixture) -> None:
    native = {"auto", "fp32", choose_runtime("cpu", "auto").dtype}
    caplog.set_level(logging.INFO, "beitcli")
    choose_runtime("cpu", dtype)
    assert [message.split()[0] for message in caplog.messages] == ([] if dtype in native else [dtype])


def test_names_of_dtypes() -> None:
    assert [Runtime("cpu", name).torch_dtype for name in ("fp32", "bf16", "fp16")] == [
        torch.float32,
        torch.bfloat16,
        torch.float16,
    ]


@pytest.mark.parametrize(
    ("device", "side", "images"),
    [
        ("cpu", 32, 32),
        ("cuda", 32, 128),
        ("mps", 32, 128),
        ("cpu", 224, 4),
        ("cpu", 384, 2),
        ("cuda", 224, 128),
        ("cuda", 384, 32),
        ("cuda:1", 384, 32),
        ("mps", 224, 32),
    ],
)
def test_batch_sizes_of_the_known_checkpoints(device: str, side: int, images: int) -> None:
    assert choose_batch_size(device, (side, side)) == images


@pytest.mark.parametrize("device", DEVICES)
def test_batch_sizes_are_powers_of_two_that_fall_with_the_size(device: str) -> None:
    sides = [1, 16, 32, 100, 224, 256, 384, 512, 1000, 2048, 5000, 100_000]
    sizes = [choose_batch_size(device, (side, side)) for side in sides]
    assert all(size & (size - 1) == 0 for size in sizes)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 8 > sizes[-1] == 1


@pytest.mark.parametrize(("gigabytes", "images"), [(80, 128), (8, 128), (4, 64), (1, 16), (0.001, 1)])
def test_a_gpu_with_little_memory_gets_smaller_batches(gigabytes: float, images: int) -> None:
    assert choose_batch_size("cuda", (224, 224), gigabytes * 1e9) == images


@pytest.mark.parametrize("device", DEVICES)
def test_the_batch_size_depends_only_on_the_area(device: str) -> None:
    assert choose_batch_size(device, (128, 512)) == choose_batch_size(device, (512, 128))
    assert choose_batch_size(device, (128, 512)) == choose_batch_size(device, (256, 256))


@pytest.mark.parametrize(
    ("limit", "expected"), [("100000 100000", 1), ("150000 100000", 2), ("10000 100000", 1), ("max 100000", 0)]
)
def test_a_containers_quota_is_respected(
    limit: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text(f"{limit}\n")
    monkeypatch.setattr(cores, "CPU_QUOTA", str(tmp_path / "cpu.max"))
    mine = len(os.sched_getaffinity(0))
    assert cores.usable_cores() == min(mine, expected or mine)
