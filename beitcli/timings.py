"""Where a run's time goes."""

import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Timings:
    """Seconds that a run spent on each of its stages; waiting for `decoding` does not count what `network` held up."""

    network: float = 0.0
    decoding: float = 0.0
    model: float = 0.0
    started: float = field(default_factory=time.monotonic)

    def add_network(self, seconds: float) -> None:
        """Counts seconds in which the network kept the decoders from work."""
        self.network += seconds
        self.decoding -= seconds

    def restart(self) -> None:
        """Everything counts from here: from when the model is loaded."""
        self.network = self.decoding = self.model = 0.0
        self.started = time.monotonic()

    @property
    def total(self) -> float:
        return time.monotonic() - self.started

    @property
    def limit(self) -> str:
        """The stage that took longest."""
        return max(("network", "decoding", "model"), key=lambda stage: getattr(self, stage))
