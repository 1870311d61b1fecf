"""Input and output files of the rivals."""

import csv
import os
import sys
from collections.abc import Iterable

TOP = 5


def listed_images(path: str) -> list[str]:
    """The paths in a list whose entries end with NUL."""
    with open(path, "rb") as stream:
        return [os.fsdecode(name) for name in stream.read().split(b"\0") if name]


def write_predictions(path: str, images: Iterable[str], predictions: Iterable[list[tuple[str, float]]]) -> None:
    """Write a row per image: its path, then labels and scores, best first."""
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        rows = csv.writer(stream)
        for image, scores in zip(images, predictions, strict=True):
            rows.writerow([image, *(field for score in scores for field in score)])


def print_rate(images: int, seconds: float) -> None:
    """Print the rate, which `beit bench` reads."""
    print(f"{images / seconds:.3f} images/s", file=sys.stderr)  # noqa: T201
