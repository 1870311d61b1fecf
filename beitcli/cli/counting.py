"""A count beside the run, for the total of its bar."""

import threading
import time
from collections.abc import Callable, Iterable

from beitcli.errors import BeitError

_SHARE = 0.1
"""Share of the time in which it counts: it shares Python's lock with the run."""

_AT_ONCE = 1000


class Counting:
    """A thread that adds numbers up and calls `on_total` with the sum, unless it is stopped or cannot read them."""

    def __init__(self, counts: Callable[[], Iterable[int]], on_total: Callable[[int], object]) -> None:
        self._counts = counts
        self._on_total = on_total
        self._stopped = threading.Event()
        self._calling = threading.Lock()
        threading.Thread(target=self._run, daemon=True).start()  # a folder that hangs must not hold the end up

    def stop(self) -> None:
        """Stop: `on_total` is not called any more, and the thread ends soon."""
        with self._calling:
            self._stopped.set()

    def _run(self) -> None:
        total, began = 0, time.monotonic()
        try:
            for number, count in enumerate(self._counts(), 1):
                total += count
                if number % _AT_ONCE == 0:
                    spent = time.monotonic() - began
                    if self._stopped.wait(spent / _SHARE - spent):
                        return
                    began = time.monotonic()
        except (BeitError, OSError):  # the run itself meets and reports it
            return
        with self._calling:
            if not self._stopped.is_set():
                self._on_total(total)
