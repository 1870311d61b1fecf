"""Identical images among the examples."""

import logging

import pytest

from beitcli.records import Source
from beitcli.training.data.checks import Identical, Reading, check_readings
from beitcli.training.data.examples import Example, Split


def test_identical_images_are_counted_in_both_parts_and_in_several_classes(caplog: pytest.LogCaptureFixture) -> None:
    labels = {"a": 0, "b": 0, "c": 1, "d": 2, "e": 1, "f": 2}
    training = tuple(Example(Source(name), target) for name, target in labels.items())
    split = Split(("x", "y", "z"), training, (Example(Source("v"), 1), Example(Source("w"), 1)))
    one, two, three, other = (bytes([number]) * 32 for number in range(4))
    # one image in three classes, one in two, one twice in the same class
    reading = Reading((0, 2, 3, 4, 5, 1), (one, one, one, two, two, three), ())
    with caplog.at_level(logging.WARNING, "beitcli"):
        found = check_readings(split, reading, Reading((0, 1), (three, other), ()), 0)
    assert found == Identical(overlap=1, ambiguous=2)
    assert caplog.messages == [
        "the same image in validation and training: v, b",
        "the same image in two classes: a, c",
        "the same image in two classes: e, f",
    ]
