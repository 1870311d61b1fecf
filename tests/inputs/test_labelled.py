"""Labelled images, from folders and from tables."""

import logging
import os
from pathlib import Path

import pytest

from beitcli.errors import UsageError
from beitcli.inputs.labelled import by_folder, by_table, classes_without_images
from beitcli.inputs.sources import Walk
from beitcli.records import Failure, Skipped, Source
from tests.conftest import unprivileged


def grown(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"an image")
    return folder


def test_a_class_is_the_folder_below_the_one_named(tmp_path: Path) -> None:
    grown(tmp_path / "in", "cat/1.jpg", "cat/deep/cat.jpg/2.png", "dog/1.jpg", "dog/notes.txt", ".hidden/1.jpg")
    skipped = Skipped()
    labelled = by_folder(f"{tmp_path}/in/", Walk(), skipped)
    assert [(each.found, each.label) for each in labelled] == [
        (Source(f"{tmp_path}/in/cat/1.jpg"), "cat"),
        (Source(f"{tmp_path}/in/cat/deep/cat.jpg/2.png"), "cat"),
        (Source(f"{tmp_path}/in/dog/1.jpg"), "dog"),
    ]
    assert skipped == {"hidden": 1, "not an image type": 1}


def test_class_folders_without_images_are_listed(tmp_path: Path) -> None:
    grown(tmp_path, "cat/1.jpg", "dog/1.txt", ".git/1.jpg", "@eaDir/1.jpg")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("cat")
    for walk, expected in (
        (Walk(), ["dog", "empty", "link"]),
        (Walk(follow=True), ["dog", "empty"]),
        (Walk(exclude=("e*", "./dog/")), ["link"]),
    ):
        labelled = by_folder(str(tmp_path), walk, Skipped())
        assert classes_without_images(str(tmp_path), labelled, walk) == expected


def test_an_unreadable_folder_is_a_failure_of_its_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grown(tmp_path / "t", "cat/1.jpg", "dog/closed/1.jpg")
    monkeypatch.chdir(tmp_path)  # its parents may be unreadable too
    tmp_path.chmod(0o755)
    closed = tmp_path / "t" / "dog" / "closed"
    closed.chmod(0)
    try:
        with unprivileged():
            labelled = by_folder("t", Walk(), Skipped())
    finally:
        closed.chmod(0o755)
    assert [(type(each.found), each.label) for each in labelled] == [(Source, "cat"), (Failure, "dog")]


def test_a_class_that_is_not_utf8_is_written_as_sources_are(tmp_path: Path) -> None:
    os.mkdir(os.fsencode(tmp_path) + b"/gr\xfcn")
    with open(os.fsencode(tmp_path) + b"/gr\xfcn/1.jpg", "wb"):
        pass
    labelled = by_folder(str(tmp_path), Walk(), Skipped())
    assert [each.label for each in labelled] == ["gr\\xfcn"]
    assert not classes_without_images(str(tmp_path), labelled, Walk())


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (("train/cat/1.jpg", "train/dog/2.jpg", "val/cat/3.jpg", "test/dog/4.jpg"), ("train", "val")),
        (("Train/cat/1.jpg", "Test/cat/2.jpg", "labels/1.jpg"), ("Train", "Test")),
        (("train/cat/1.jpg", "valid/dog/2.jpg"), None),
        (("train/1.jpg", "test/2.jpg"), None),
        (("cat/left/1.jpg", "dog/left/2.jpg", "train/left/3.jpg"), None),
    ],
)
def test_parts_of_a_data_set_are_no_classes(
    tmp_path: Path, names: tuple[str, ...], parts: tuple[str, str] | None
) -> None:
    grown(tmp_path, *names)
    if parts is None:
        assert len(by_folder(str(tmp_path), Walk(), Skipped())) == len(names)
        return
    with pytest.raises(UsageError, match="hold the same classes") as caught:
        by_folder(f"{tmp_path}/", Walk(), Skipped())
    first, second = (f"{tmp_path}/{part}" for part in parts)
    assert str(caught.value).startswith(f"`{first}` and `{second}` ")
    assert caught.value.hint == f"train on `{first}` with `val={second}`, or evaluate one of them"


def test_an_image_in_no_class_is_named(tmp_path: Path) -> None:
    grown(tmp_path, "cat/1.jpg", "cover.jpg")
    with pytest.raises(UsageError, match=r"cover\.jpg` is in no class folder"):
        by_folder(str(tmp_path), Walk(), Skipped())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "path,label\na.jpg,cat\nb.jpg,dog\n"),
        ("t.csv", "\ufeffLabel,x,Source\r\ncat,1,a.jpg\r\n\r\n dog ,2,b.jpg\r\n"),
        ("t.csv", 'a.jpg,cat\n"b.jpg","dog"'),
        ("t.tsv", "image\tclass\na.jpg\tcat\nb.jpg\tdog\n"),
    ],
)
def test_a_table_names_paths_and_labels(tmp_path: Path, name: str, text: str) -> None:
    grown(tmp_path, "a.jpg")
    (tmp_path / name).write_bytes(text.encode())
    first, second = by_table(str(tmp_path / name))
    assert (first.found, first.label) == (Source(f"{tmp_path}/a.jpg"), "cat")  # beside the table
    assert (second.found, second.label) == (Source("b.jpg"), "dog")  # does not exist; reported on reading


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_table_may_be_in_utf8_or_utf16(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "t.csv").write_bytes("path,label\r\n日本.jpg,Käfer\r\n".encode(encoding))
    assert [(each.found, each.label) for each in by_table(str(tmp_path / "t.csv"))] == [(Source("日本.jpg"), "Käfer")]


@pytest.mark.parametrize(
    ("data", "message", "hint"),
    [
        (b"path,label\na.jpg,K\xe4fer\n", "line 2: byte 0xE4 at position 8 is not UTF-8", "is `a.jpg,Käfer`"),
        ("a.jpg,cat\n".encode("utf-16-le"), "is in UTF-16 without a byte order mark", "UTF-8"),
        (b"PK\3\4\0\0", "is no text: it has NUL in it", "UTF-8"),
    ],
    ids=["Windows-1252", "UTF-16", "a workbook"],
)
def test_a_table_in_another_encoding_is_an_error_that_names_it(
    tmp_path: Path, data: bytes, message: str, hint: str
) -> None:
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(UsageError) as caught:
        by_table(str(tmp_path / "t.csv"))
    assert str(caught.value).removeprefix(f"`{tmp_path}/t.csv`").lstrip(", ").startswith(message)
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize(
    ("name", "text", "separators"),
    [
        ("t.csv", "path;label\na.jpg;cat\n", "semicolons"),
        ("t.csv", "a.jpg;cat\n", "semicolons"),
        ("t.csv", "source;score;label\na.jpg;0,5;cat\n", "semicolons"),
        ("t.csv", "a.jpg;0,5;cat\n", "semicolons"),
        ("t.csv", "path\tlabel\na.jpg\tcat\n", "tabs"),
        ("t.tsv", "path,label\na.jpg,cat\n", "commas"),
        ("t.csv", "a.jpg,cat;dog\n", None),
        ("t.csv", "b;b.jpg,cat\n", None),
    ],
)
def test_a_table_of_other_separators_is_told_to_be_one(
    tmp_path: Path, name: str, text: str, separators: str | None
) -> None:
    grown(tmp_path, "a.jpg", "b", "b;b.jpg")
    (tmp_path / name).write_text(text)
    if separators is None:
        assert len(by_table(str(tmp_path / name))) == 1
        return
    with pytest.raises(UsageError, match=f"are separated by {separators}$") as caught:
        by_table(str(tmp_path / name))
    assert caught.value.hint == "a table has commas, or tabs where its name ends in .tsv"


def test_names_in_a_table_may_have_either_unicode_form(tmp_path: Path) -> None:
    composed, decomposed = "\u00dcbung", "U\u0308bung"
    grown(tmp_path, f"{decomposed}.jpg")
    (tmp_path / "t.csv").write_text(f"{composed}.jpg,{composed}\n{decomposed}.jpg,{decomposed}\n")
    one, other = by_table(str(tmp_path / "t.csv"))
    assert one == other
    assert (one.found, one.label) == (Source(f"{tmp_path}/{decomposed}.jpg"), composed)


def test_paths_in_a_table_that_exist_in_another_spelling_get_one_notice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    grown(tmp_path, "in/a.jpg")
    (tmp_path / "t.csv").write_text("in\\a.jpg,cat\nin\\a.jpg,cat\n")
    by_table(str(tmp_path / "t.csv"))
    notice = "has `in\\a.jpg`, which does not exist, but `in/a.jpg` does: write / for \\"
    assert caplog.messages == [f"`{tmp_path}/t.csv` {notice}"]


def test_a_name_that_is_not_utf8_is_found_as_records_write_it(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    with open(path, "wb") as stream:
        stream.write(b"an image")
    grown(tmp_path, "as \\xe9 itself.jpg")
    table = tmp_path / "corrections.csv"
    table.write_text("path,label\ncaf\\xe9.jpg,cat\nas \\xe9 itself.jpg,dog\ngone \\xe9.jpg,dog\n")
    locations = [each.found.location for each in by_table(str(table)) if isinstance(each.found, Source)]
    assert locations == [os.fsdecode(path), f"{tmp_path}/as \\xe9 itself.jpg", "gone \\xe9.jpg"]


def test_urls_in_a_table_are_urls(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("http://h/a.jpg,cat\n")
    assert by_table(str(tmp_path / "t.csv"))[0].found == Source("http://h/a.jpg", "url")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no row"),
        ("path,label\n", "has no row"),
        ("path,species\na.jpg,cat\n", "no column with the label"),
        ("name,label\na.jpg,cat\n", "no column with the path"),
        ("filepath,species\na.jpg,cat\n", "row 1: `filepath` is no image"),
        ("path,label\na.jpg,cat\nb.jpg\n", "row 3"),
        ("a.jpg,cat\nb.jpg,  \n", "row 2"),
    ],
)
def test_an_incomplete_table_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UsageError, match=words):
        by_table(str(tmp_path / "t.csv"))


def test_an_unreadable_folder_of_classes_is_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grown(tmp_path / "t", "cat/1.jpg")
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    (tmp_path / "t").chmod(0)
    try:
        with unprivileged(), pytest.raises(UsageError, match="cannot list the folder `t`: Permission denied"):
            by_folder("t", Walk(), Skipped())
    finally:
        (tmp_path / "t").chmod(0o755)


def test_failures_in_a_file_of_records_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "beitcli")
    header = "source,status,label,index,score,error_code,error_message"
    rows = ["a.jpg,ok,cat,3,0.5,,", "b.jpg,error,,,,truncated,too short", "c.jpg,ok,error,1,0.5,,"]
    (tmp_path / "k.csv").write_text("\n".join([header, *rows, ""]))
    labelled = by_table(str(tmp_path / "k.csv"))
    assert [(each.found, each.label) for each in labelled] == [(Source("a.jpg"), "cat"), (Source("c.jpg"), "error")]
    assert caplog.messages == [
        f"`{tmp_path}/k.csv` holds predictions of a model, not labels that somebody has checked",
        f"1 rows of `{tmp_path}/k.csv` are images that failed, and are left out",
    ]
    (tmp_path / "own.csv").write_text("path,label,status\na.jpg,,error\n")
    with pytest.raises(UsageError, match="row 2"):
        by_table(str(tmp_path / "own.csv"))
