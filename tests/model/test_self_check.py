"""The check of int8: beside the run, over as many images as it is for, and with the errors of the other model."""

import logging
from threading import Event
from typing import Any

import pytest
import torch
from torch import Tensor

from beitcli.errors import ModelError
from beitcli.model.self_check import SelfCheck
from beitcli.records import Score

PIXELS = torch.zeros(8, 2, 2, 3, dtype=torch.uint8)


def scores(pixels: Tensor, score: float = 0.75) -> list[Any]:
    return [(Score("cat", 0, score), Score("dog", 1, 1 - score)) for _ in pixels]


def test_it_is_done_once_enough_images_are_compared(caplog: pytest.LogCaptureFixture) -> None:
    is_loaded = Event()

    def reference() -> Any:
        is_loaded.wait(60)
        return lambda pixels: scores(pixels, 0.5)

    check = SelfCheck(reference, 12, 1)
    check.start()
    with caplog.at_level(logging.INFO):
        for _ in range(5):  # none of which waits for the reference
            check.compare(PIXELS, scores(PIXELS, 0.625))
            assert not check.is_done(wait=False)
        is_loaded.set()
        assert check.is_done(wait=True)
    assert caplog.messages == ["int8: same best label on 12 of 12, largest score change 0.12"]


def test_fewer_images_than_it_is_for_are_compared_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    check = SelfCheck(lambda: scores, 12, 1)
    check.start()
    check.compare(PIXELS, scores(PIXELS))
    with caplog.at_level(logging.INFO):
        assert not check.is_done(wait=False)
        assert check.is_done(wait=True)
    assert caplog.messages == ["int8: same best label on 8 of 8, largest score change 0"]


def test_a_reference_that_cannot_be_loaded_is_an_error_of_the_run() -> None:
    def broken() -> Any:
        raise ModelError("the weights do not fit")

    check = SelfCheck(broken, 4, 1)
    check.start()
    check.compare(PIXELS, scores(PIXELS))
    with pytest.raises(ModelError, match="do not fit"):
        check.is_done(wait=True)


def test_results_that_differ_end_the_run() -> None:
    check = SelfCheck(lambda: lambda pixels: scores(pixels, 0.25), 8, 1)
    check.start()
    check.compare(PIXELS, scores(PIXELS))
    with pytest.raises(ModelError, match="int8 spoils this model"):
        check.is_done(wait=True)


@pytest.mark.parametrize(("others", "is_good"), [(1, True), (2, False)])
def test_one_of_32_images_may_have_another_label(others: int, is_good: bool, caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = scores(PIXELS.repeat(4, 1, 1, 1), 0.51), scores(PIXELS.repeat(4, 1, 1, 1), 0.51)
    theirs[:others] = [tuple(reversed(pair)) for pair in scores(PIXELS[:others], 0.49)]
    check = SelfCheck(lambda: lambda _: theirs, 32, 1)
    check.start()
    check.compare(PIXELS.repeat(4, 1, 1, 1), ours)
    if is_good:
        with caplog.at_level(logging.INFO):
            assert check.is_done(wait=True)
        assert caplog.messages == ["int8: same best label on 31 of 32, largest score change 0.02"]
    else:
        with pytest.raises(ModelError, match="same best label on 30 of 32"):
            check.is_done(wait=True)


def test_pixels_may_change_once_they_are_given() -> None:
    seen: list[Tensor] = []
    may_compute = Event()

    def reference(pixels: Tensor) -> list[Any]:
        may_compute.wait(60)
        seen.append(pixels)
        return scores(pixels)

    check = SelfCheck(lambda: reference, 8, 1)
    check.start()
    pixels = PIXELS.clone()
    check.compare(pixels, scores(pixels))
    pixels.fill_(255)
    may_compute.set()
    assert check.is_done(wait=True)
    assert torch.equal(seen[0], PIXELS)
