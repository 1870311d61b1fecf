"""Dry run: print the number of images in each state."""

from collections.abc import Mapping
from contextlib import suppress

from beitcli.outputs.destination import ReaderClosed, writing


def print_preview(states: Mapping[str, int]) -> None:
    """Print a line for each state on standard output."""
    with suppress(ReaderClosed), writing():
        print("\n".join(f"{count} {state}" for state, count in states.items()))  # noqa: T201
