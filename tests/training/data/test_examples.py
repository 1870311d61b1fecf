"""Hold-out of validation examples."""

from collections import Counter
from pathlib import Path

from beitcli.inputs.sources import Walk
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
