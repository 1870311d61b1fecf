"""The summary's fixed first line, and the exit status."""

import pytest

from beitcli.errors import ExitStatus
from beitcli.outputs.summary import LIMITS, Tally
from beitcli.records import Failure, Prediction, Source
from beitcli.timings import Timings


def tally(good: int, bad: int) -> Tally:
    result = Tally()
    result.add([Prediction(Source("a"), ())] * good + [Failure(Source("b"), "corrupt", "")] * bad)
    return result


@pytest.mark.parametrize(
    ("good", "bad", "tolerated", "status"),
    [
        (3, 0, 0.0, ExitStatus.OK),
        (3, 1, 0.0, ExitStatus.SOME_FAILED),
        (3, 1, None, ExitStatus.OK),
        (3, 1, 0.25, ExitStatus.OK),
        (3, 1, 0.24, ExitStatus.SOME_FAILED),
        (0, 2, 1.0, ExitStatus.OK),
        (0, 0, 0.0, ExitStatus.OK),
    ],
)
def test_the_share_of_failures_decides(good: int, bad: int, tolerated: float | None, status: ExitStatus) -> None:
    assert tally(good, bad).exit_status(tolerated) == status


def test_lines() -> None:
    counted = tally(2, 1)
    counted.skipped.update({"hidden": 4, "link": 1})
    counted.skipped.add_other_type("a.mp4")
    counted.skipped.add_other_type("b.MP4")
    timings = Timings(network=1, decoding=5, model=2)
    first, failed, skipped, rate = counted.lines(timings)
    assert first == "3 images: 0 kept, 2 decoded, 0 reused, 1 failed"
    assert failed == "failed: 1 corrupt"
    assert skipped == "skipped: 4 hidden, 1 link, 2 not an image type: .mp4 2"
    assert "limited by decoding" in rate


@pytest.mark.parametrize(
    ("names", "helpful", "timings", "advice"),
    [
        (["a.png", "b.JPG"], {"decoding", "model"}, Timings(decoding=2), " (`fast_decode=True` would help)"),
        (["a.png"], {"decoding", "model"}, Timings(decoding=2), ""),
        (["b.jpg"], {"model"}, Timings(decoding=2), ""),
        (["a.png"], {"decoding", "model"}, Timings(model=2), " (a smaller `model=` would help)"),
        (["b.jpg"], {"decoding"}, Timings(model=2), ""),
    ],
)
def test_advice_only_where_it_helps(names: list[str], helpful: set[str], timings: Timings, advice: str) -> None:
    counted = Tally(helpful=frozenset(helpful))
    counted.add([Prediction(Source(name), ()) for name in names])
    assert counted.lines(timings)[-1].partition("limited by ")[2] == LIMITS[timings.limit] + advice


def test_waiting_for_the_network_is_not_waiting_for_decoding() -> None:
    timings = Timings(decoding=5, model=3)
    timings.add_network(4)
    assert (timings.network, timings.decoding, timings.limit) == (4, 1, "network")


def test_nothing_to_do_has_no_rate() -> None:
    assert tally(0, 0).lines(Timings()) == ["0 images: 0 kept, 0 decoded, 0 reused, 0 failed"]
