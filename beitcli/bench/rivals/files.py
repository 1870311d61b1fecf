"""What the rivals read and write."""

import csv
import os
import sys
from collections.abc import Iterable

TOP = 5


def read_list(path: str) -> list[str]:
    """The paths in a list whose entries end with NUL."""
    with open(path, "rb") as stream:
        return [os.fsdecode(name) for name in stream.read().split(b"\0") if name]


def write_answers(path: str, pictures: Iterable[str], answers: Iterable[list[tuple[str, float]]]) -> None:
    """Writes a row a picture: its path, then labels and scores, best first."""
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        rows = csv.writer(stream)
        for picture, scores in zip(pictures, answers, strict=True):
            rows.writerow([picture, *(field for score in scores for field in score)])


def report(pictures: int, seconds: float) -> None:
    """Prints the rate, which `beit bench` reads."""
    print(f"{pictures / seconds:.3f} images/s", file=sys.stderr)  # noqa: T201
