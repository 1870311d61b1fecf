"""Seconds per stage of a run."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Timings:
    """Seconds that a run spent on each of its stages; `decoding` excludes waits caused by `network`."""

    network: float = 0.0
    decoding: float = 0.0
    model: float = 0.0
    started: float = field(default_factory=time.monotonic)
    ended: float | None = None

    def add_network(self, seconds: float) -> None:
        """Add seconds in which the decoders waited for the network."""
        self.network += seconds
        self.decoding -= seconds

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count from zero, now that the model is loaded, to the end of the block: no writing after it."""
        self.network = self.decoding = self.model = 0.0
        self.started, self.ended = time.monotonic(), None
        try:
            yield
        finally:
            self.ended = time.monotonic()

    @property
    def total(self) -> float:
        """Seconds until the end, or until now."""
        return (time.monotonic() if self.ended is None else self.ended) - self.started

    @property
    def limit(self) -> str:
        """The slowest stage."""
        return max(("network", "decoding", "model"), key=lambda stage: getattr(self, stage))
