"""Summary of a run: counts, rate, bottleneck, exit status."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from beitcli.errors import ExitStatus
from beitcli.records import Embedding, Failure, Prediction, Skipped
from beitcli.timings import Timings

LIMITS = {
    "network": "the network (no option helps: one host gets at most 8 requests at a time)",
    "decoding": "decoding",
    "model": "the model",
}
"""Bottleneck of a run, for each stage of `Timings`."""

_ADVICE = {"decoding": "`fast_decode=True` would help", "model": "a smaller `model=` would help"}

_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")


@dataclass(slots=True)
class Tally:
    """Counts of the requested images; `processed` counts those of this run alone, failures included.

    `jpegs` are those decoded whose name is a JPEG's; `helpful` are the stages that an option would make faster.
    """

    kept: int = 0
    decoded: int = 0
    reused: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    skipped: Skipped = field(default_factory=Skipped)
    processed: int = 0
    jpegs: int = 0
    helpful: frozenset[str] = frozenset()

    def add(self, records: Iterable[Prediction | Embedding | Failure]) -> None:
        for record in records:
            if isinstance(record, Failure):
                self.failed[record.code] += 1
            elif record.reused:
                self.reused += 1
            else:
                self.decoded += 1
                self.jpegs += record.source.location.lower().endswith(_JPEG)
            self.processed += 1

    @property
    def images(self) -> int:
        return self.kept + self.decoded + self.reused + self.failed.total()

    def exit_status(self, tolerated: float | None) -> ExitStatus:
        """SOME_FAILED where the share of failures is above `tolerated` (0…1); None tolerates all of them."""
        if tolerated is None or self.failed.total() <= tolerated * self.images:
            return ExitStatus.OK
        return ExitStatus.SOME_FAILED

    def failures(self) -> str:
        """The failures of a run in one line."""
        return f"{self.failed.total()} of {self.images} images failed ({_counts(self.failed)})"

    def lines(self, timings: Timings) -> list[str]:
        """The summary of a run; its first line is fixed, for scripts."""
        counts = f"{self.kept} kept, {self.decoded} decoded, {self.reused} reused, {self.failed.total()} failed"
        lines = [f"{self.images} images: {counts}"]
        if self.failed:
            lines.append("failed: " + _counts(self.failed))
        if self.skipped:
            lines.append("skipped: " + self.skipped.text())
        if self.processed:
            limit = f", limited by {LIMITS[timings.limit]}{self._advice(timings.limit)}" if self.decoded else ""
            lines.append(f"{self.processed / timings.total:.1f} images/s{limit}")
        return lines

    def _advice(self, stage: str) -> str:
        """The option that would help a run limited by this stage; for decoding it is one for JPEG."""
        helps = stage in self.helpful and (stage != "decoding" or self.jpegs)
        return f" ({_ADVICE[stage]})" if helps else ""


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counter.most_common())
