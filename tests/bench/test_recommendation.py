"""Recommended options for made-up measurements."""

import time

import pytest

from beitcli.bench.clock import FULL, Rate, measured_rate, rate_of
from beitcli.bench.decoding import DecodingRates
from beitcli.bench.model import ModelRate
from beitcli.bench.recommendation import recommend
from beitcli.model.runtime import Runtime


def rates(dtype: str, **images: float) -> list[ModelRate]:
    return [
        ModelRate(Runtime("cpu", dtype), int(size.removeprefix("b")), rate_of(rate, [1.0]), 35 * rate, 0.5)
        for size, rate in images.items()
    ]


def decoding(full: float) -> DecodingRates:
    return DecodingRates(rate_of(full, [1.0]), rate_of(3 * full, [1.0]))


SLOW = rates("fp32", b1=6, b8=7, b16=7.1)


@pytest.mark.parametrize(
    ("images", "batch_size"),
    [
        ({"b1": 20, "b8": 38, "b16": 39, "b32": 37}, 8),
        ({"b1": 20, "b8": 37, "b16": 39, "b32": 39}, 16),
        ({"b1": 39, "b8": 38, "b16": 39.1, "b32": 20}, 1),
    ],
)
def test_the_smallest_batch_that_is_as_good(images: dict[str, float], batch_size: int) -> None:
    chosen = recommend(SLOW + rates("bf16", **images), decoding(400), cores=2)
    assert (chosen.dtype, chosen.batch_size) == ("bf16", batch_size)
    assert chosen.options == f"--dtype bf16 -b {batch_size} -j 1"


def test_int8_is_left_to_the_user() -> None:
    assert recommend(SLOW + rates("int8", b8=50), decoding(400), cores=2).dtype == "fp32"


@pytest.mark.parametrize(("full", "cores", "workers"), [(400, 8, 1), (40, 8, 2), (10, 8, 5), (10, 4, 4)])
def test_workers_are_enough_for_the_model_and_no_more_than_cores(full: float, cores: int, workers: int) -> None:
    assert recommend(rates("bf16", b8=39), decoding(full), cores).workers == workers


def test_bottlenecks() -> None:
    fast = rates("fp16", b32=3000)
    assert recommend(SLOW, decoding(400), 2).limit.startswith("The model limits this machine: an image takes 142.9 ms")
    assert "2.5 ms of one core" in recommend(SLOW, decoding(400), 2).limit
    limit = recommend(fast, decoding(400), 4).limit
    assert limit.startswith("Decoding limits this machine: 4 cores decode 1600 images/s, the model could take 3000")
    assert "--fast-decode it is 4800" in limit


def test_rates_are_of_medians() -> None:
    rate = rate_of(12, [1.0, 9.0, 2.0])
    assert rate == Rate(6.0, rate.timing)
    assert rate.timing.seconds == (1.0, 9.0, 2.0)


def test_work_is_repeated_for_long_enough() -> None:
    calls: list[int] = []
    start = time.monotonic()

    def work() -> None:
        calls.append(1)
        time.sleep(0.01)

    rate = measured_rate(1, work, FULL)
    assert len(calls) == len(rate.timing.seconds) + 1 > FULL.repetitions
    assert time.monotonic() - start >= FULL.seconds
