"""Names of folders for labels: portable, apart from each other, the same in every run."""

import pytest

from beitcli.sorting.folders import Folders, portable


@pytest.mark.parametrize(
    ("label", "folder"),
    [
        ("tabby, tabby cat", "tabby, tabby cat"),
        ("Bär", "Bär"),
        ("Ba\u0308r", "Bär"),
        ("a/b", "a_b"),
        ("../../etc/passwd", "_._.._etc_passwd"),
        ("..", "_"),
        (".", "_"),
        ("", "_"),
        ("   ", "_"),
        (".hidden", "_hidden"),
        ("a\0b\nc\x1b[31m", "a_b_c_[31m"),
        ('a<b>c:d"e|f?g*h\\i', "a_b_c_d_e_f_g_h_i"),
        ("con", "_con"),
        ("Aux.jpg", "_Aux.jpg"),
        ("COM1", "_COM1"),
        ("com", "com"),
        ("ends. . ", "ends"),
        ("evil\u202egpj", "evil_gpj"),
        ("\ud800", "_"),
        ("x" * 1_000_000, "x" * 200),
        ("ü" * 150, "ü" * 100),
    ],
)
def test_a_label_becomes_a_name_for_any_file_system(label: str, folder: str) -> None:
    assert portable(label) == folder
    assert len(folder.encode()) <= 200


def test_labels_that_a_file_system_may_not_tell_apart_get_numbers() -> None:
    folders = Folders({}, ("beit-sort.jsonl",), lambda name: name != "a file")
    labels = ["Cat", "cat", "a/b", "a_b", "unsure", "failed", "beit-sort.jsonl", "a file", "Cat"]
    names = ["Cat", "cat_2", "a_b", "a_b_2", "unsure_2", "failed_2", "beit-sort.jsonl_2", "a file_2", "Cat"]
    assert [folders.of(label) for label in labels] == names


def test_the_labels_of_earlier_runs_keep_their_folders() -> None:
    folders = Folders({"cat": "cat", "Cat": "Cat_2"}, (), lambda name: True)
    assert [folders.of(label) for label in ("CAT", "Cat", "cat")] == ["CAT_3", "Cat_2", "cat"]
