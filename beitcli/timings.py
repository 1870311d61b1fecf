"""Seconds per stage of a run."""

import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Timings:
    """Seconds that a run spent on each of its stages; `decoding` excludes waits caused by `network`."""

    network: float = 0.0
    decoding: float = 0.0
    model: float = 0.0
    started: float = field(default_factory=time.monotonic)

    def add_network(self, seconds: float) -> None:
        """Add seconds in which the decoders waited for the network."""
        self.network += seconds
        self.decoding -= seconds

    def restart(self) -> None:
        """Reset all counts, once the model is loaded."""
        self.network = self.decoding = self.model = 0.0
        self.started = time.monotonic()

    @property
    def total(self) -> float:
        return time.monotonic() - self.started

    @property
    def limit(self) -> str:
        """The slowest stage."""
        return max(("network", "decoding", "model"), key=lambda stage: getattr(self, stage))
