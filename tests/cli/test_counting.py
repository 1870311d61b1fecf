"""The count beside the run: a sum in a thread, which a stop or an unreadable input ends without one."""

import threading
from collections.abc import Iterator

from beitcli.cli.counting import Counting
from beitcli.errors import UsageError

PATIENCE = 60.0


def test_the_sum_is_reported_once_it_is_complete() -> None:
    totals: list[int] = []
    done = threading.Event()

    def on_total(total: int) -> None:
        totals.append(total)
        done.set()

    Counting(lambda: [2] * 2500 + [1], on_total)
    assert done.wait(PATIENCE)
    assert totals == [5001]


def test_a_stopped_count_ends_and_reports_nothing() -> None:
    totals: list[int] = []
    begun, go, ended = threading.Event(), threading.Event(), threading.Event()

    def numbers() -> Iterator[int]:
        try:
            begun.set()
            go.wait(PATIENCE)
            while True:
                yield 1
        finally:
            ended.set()

    counting = Counting(numbers, totals.append)
    assert begun.wait(PATIENCE)
    counting.stop()
    go.set()
    assert ended.wait(PATIENCE)
    assert totals == []


def test_inputs_that_cannot_be_read_have_no_sum() -> None:
    totals: list[int] = []
    threads = threading.active_count()

    def numbers() -> Iterator[int]:
        yield 1
        raise UsageError("no image")

    Counting(numbers, totals.append)
    for thread in threading.enumerate()[threads:]:
        thread.join(PATIENCE)
    assert totals == []
