"""Facts of a stored result against those of this run: it is stale only where a fact that decides it has changed."""

from collections.abc import Mapping
from dataclasses import dataclass

THERE, NOT_THERE = "there", "not there"
"""The facts of an extra that opens further formats."""


@dataclass(frozen=True, slots=True)
class Validity:
    """Validity of the results stored under other facts.

    `holds` is False where none does. Failures with the codes in `cured` may pass now, and with `max_pixels` only the
    results of images that are known to be no larger hold.
    """

    holds: bool
    cured: frozenset[str] = frozenset()
    max_pixels: int | None = None

    def of_image(self, pixels: int | None) -> bool:
        """True if the result of an image of so many pixels, None where that is unknown, is what this run would give."""
        return self.holds and (self.max_pixels is None or (pixels is not None and pixels <= self.max_pixels))

    def of_failure(self, code: str) -> bool:
        """True if a failure of this code is still what this run would give."""
        return self.holds and code not in self.cured


STALE = Validity(holds=False)


def validity(before: Mapping[str, str], now: Mapping[str, str]) -> Validity:
    """Validity, now, of results stored under the facts `before`.

    The number of labels is left to the stored prediction, which may have more than its run asked for. What an extra has
    opened stays when the extra is gone, and so does a failure when the limit of pixels is lowered.
    """
    cured, max_pixels = set(), None
    for name in {*before, *now} - {"--top-k"}:
        old, new = before.get(name, ""), now.get(name, "")
        if old == new:
            continue
        if {old, new} == {THERE, NOT_THERE}:
            cured |= {"unsupported"} if new == THERE else set()
        elif name == "--max-pixels" and old.isdecimal() and new.isdecimal():
            if int(old) < int(new):
                cured.add("too_large")
            else:
                max_pixels = int(new)
        else:
            return STALE
    return Validity(holds=True, cured=frozenset(cured), max_pixels=max_pixels)
