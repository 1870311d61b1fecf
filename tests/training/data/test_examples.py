"""Hold-out of validation examples."""

from collections import Counter
from pathlib import Path

import pytest

from beitcli.errors import UsageError
from beitcli.inputs.labelled import Labelled
from beitcli.inputs.sources import Walk
from beitcli.records import Source
from beitcli.training.data.examples import in_folders, split
from tests.training.shapes import draw_classes


def test_a_share_of_each_class_is_held_out_by_the_seed(tmp_path: Path) -> None:
    draw_classes(tmp_path, 20, ("blue", "red"))
    draw_classes(tmp_path, 2, ("green",))
    labelled = in_folders(str(tmp_path), Walk())
    parts = split(labelled, None, 0.2, seed=3)
    assert parts.classes == ("blue", "green", "red")
    assert Counter(example.target for example in parts.validation) == {0: 4, 1: 1, 2: 4}
    assert len(parts.training) + len(parts.validation) == 42
    assert not set(parts.training) & set(parts.validation)
    assert split(labelled, None, 0.2, seed=3) == parts
    assert split(labelled, None, 0.2, seed=4) != parts


COMPOSED, DECOMPOSED = "\u00dcbung", "U\u0308bung"


def labelled(*labels: str) -> list[Labelled]:
    return [Labelled(Source(f"{number}.jpg"), label) for number, label in enumerate(labels)]


def test_classes_that_differ_only_in_their_unicode_form_are_refused() -> None:
    with pytest.raises(UsageError, match="differ only in their Unicode form"):
        split(labelled("a", "a", COMPOSED, DECOMPOSED), None, 0.5, 0)


@pytest.mark.parametrize(("one", "other"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_a_class_of_the_validation_images_may_have_the_other_unicode_form(one: str, other: str) -> None:
    parts = split(labelled("a", one), labelled(other), 0.5, 0)
    assert parts.classes == ("a", COMPOSED)
    assert [example.target for example in parts.validation] == [1]
