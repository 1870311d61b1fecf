"""Lists of paths and URLs: their entries, encodings, and paths that exist in another spelling."""

import io
import os
import shutil
import stat
import threading
from pathlib import Path

import pytest

from beitcli.errors import UsageError
from beitcli.inputs.lists import open_list, read_list
from beitcli.inputs.sources import Walk, discover
from beitcli.records import Skipped, Source

FIELD = Path(__file__).parent.parent / "field"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


LONG = "x" * 200_000
LISTS = {
    "nothing": (b"", False, []),
    "lines": (b"a.jpg\nb/c.jpg\n", False, ["a.jpg", "b/c.jpg"]),
    "a last line without its end": (b"a.jpg\nb.jpg", False, ["a.jpg", "b.jpg"]),
    "spaces": (b" a.jpg \n\tb.jpg\n \n", False, [" a.jpg ", "\tb.jpg", " "]),
    "a final CR": (b"a.jpg\r\nb.jpg\r\n\r\nc.jpg\r", False, ["a.jpg", "b.jpg", "c.jpg"]),
    "other CRs": (b"a\rb.jpg\nc.jpg\r\r\n", False, ["a\rb.jpg", "c.jpg\r"]),
    "empty lines": (b"\n\na.jpg\n\n\nb.jpg\n\n", False, ["a.jpg", "b.jpg"]),
    "nothing is special": (b"*.jpg\n-\n--help\n#x\n'q'\na\\nb\n~/a\n", False, [
        "*.jpg", "-", "--help", "#x", "'q'", "a\\nb", "~/a",
    ]),
    "other line ends": ("a\u2028b\x0bc\x0cd\x85e.jpg\n".encode(), False, ["a\u2028b\x0bc\x0cd\x85e.jpg"]),
    "a folder's slash": (b"folder/\n./a.jpg\n", False, ["folder/", "./a.jpg"]),
    "NUL": (b"a.jpg\0b.jpg\0", True, ["a.jpg", "b.jpg"]),
    "NUL keeps line ends": (b"a\nb.jpg\r\0\n\0\0\r\0c.jpg", True, ["a\nb.jpg\r", "\n", "\r", "c.jpg"]),
    "a line longer than a block": (f"a.jpg\n{LONG}\nb.jpg\n".encode(), False, ["a.jpg", LONG, "b.jpg"]),
    "not utf-8": (b"caf\xe9.jpg\n", False, ["caf\udce9.jpg"]),
}  # fmt: skip


def test_a_list_for_null_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    assert len(list(read_list(io.BytesIO(b"a\0b\nc\0d"), null=False))) == 2
    assert [message for message in caplog.messages if "`null=True`" in message] == caplog.messages[:1] != []
    assert not caplog.messages[1:]


@pytest.mark.parametrize(("data", "null", "expected"), LISTS.values(), ids=LISTS)
def test_the_lines_of_a_list_are_literal(data: bytes, null: bool, expected: list[str]) -> None:
    Path("caf\udce9.jpg").touch()
    Path("list").write_bytes(data)
    with open_list("list") as stream:
        assert list(read_list(stream, null)) == [Source(location) for location in expected]


@pytest.mark.parametrize(
    ("line", "kind"),
    [("http://h/a.jpg", "url"), ("HTTPS://h/*", "url"), (" http://h", "path"), ("ftp://h", "path"), ("-", "path")],
)
@pytest.mark.parametrize("null", [False, True], ids=["lines", "null"])
def test_a_list_may_hold_addresses_but_never_standard_input(line: str, kind: str, null: bool) -> None:
    data = line.encode() + (b"\0" if null else b"\n")
    (source,) = read_list(io.BytesIO(data), null)
    assert (source.location, source.kind) == (line, kind)


@pytest.mark.parametrize("name", ["gone", "folder", "gone\n"])
def test_a_list_that_cannot_be_read_is_a_usage_error(name: str) -> None:
    os.mkdir("folder")
    with pytest.raises(UsageError) as caught:
        open_list(name)
    assert "cannot read the list" in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_dash_as_list_is_standard_input_and_leaves_it_open() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"a.jpg\nb.jpg\n")
    os.close(writing)
    before = os.dup(0)
    try:
        os.dup2(reading, 0)
        with open_list("-") as stream:
            assert list(read_list(stream, null=False)) == [Source("a.jpg"), Source("b.jpg")]
        assert stat.S_ISFIFO(os.fstat(0).st_mode)
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(reading)


def test_lines_arrive_while_the_writer_of_a_pipe_goes_on() -> None:
    reading, writing = os.pipe()
    arrived = threading.Event()
    seen_in_time = []

    def write() -> None:
        with os.fdopen(writing, "wb", buffering=0) as pipe:
            pipe.write(b"first.jpg\nhalf")
            seen_in_time.append(arrived.wait(10))
            arrived.clear()
            pipe.write(b" a name.jpg\n" + b"".join(b"%07d.jpg\n" % number for number in range(100_000)) + b"last")
            seen_in_time.append(arrived.wait(10))

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    with os.fdopen(reading, "rb") as stream:
        lines = discover([], read_list(stream, null=False), Walk(), Skipped())
        assert next(lines) == Source("first.jpg")
        arrived.set()
        assert next(lines) == Source("half a name.jpg")
        for number in range(100_000):
            assert next(lines) == Source(f"{number:07d}.jpg")
        arrived.set()
        assert list(lines) == [Source("last")]
    writer.join(10)
    assert seen_in_time == [True, True]


@pytest.mark.parametrize("name", ["bom.txt", "u16.txt"])
def test_lists_of_the_field_name_files_that_exist(name: str) -> None:
    shutil.copy(FIELD / name, ".")
    assert [source.location for source in read_list(open_list(name), null=False)] == ["p/boats.jpg", "p/a b.jpg"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_a_list_may_be_in_utf8_or_utf16(encoding: str) -> None:
    names = ["Übung.jpg", "日本/b.jpg", "😀.jpg", *(f"{number}.jpg" for number in range(30_000))]
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    data = (mark + "\r\n".join(names)).encode(encoding)
    assert [source.location for source in read_list(io.BytesIO(data), null=False)] == names


def test_entries_that_end_in_nul_are_bytes_as_they_are() -> None:
    names = [b"\xef\xbb\xbfa.jpg", b"\xff\xfeb.jpg", b"caf\xe9"]
    listed = read_list(io.BytesIO(b"\0".join(names)), null=True)
    assert [os.fsencode(source.location) for source in listed] == names


@pytest.mark.parametrize(
    ("data", "message", "hint"),
    [
        (b"a.jpg\n\xdcbung.jpg\r\n", "the list, line 2: byte 0xDC at position 1 is not UTF-8", "is `Übung.jpg`"),
        (b"\xef\xbb\xbfcaf\xe9.jpg\n", "the list, line 1: byte 0xE9 at position 4 is not UTF-8", "`null=True`"),
        (b"a\x81.jpg\n", "the list, line 1: byte 0x81 at position 2 is not UTF-8", "save it as UTF-8; "),
        ("a.jpg\n".encode("utf-32"), "the list is in UTF-32", "save it as UTF-8"),
        ("a.jpg\n".encode("utf-16-le"), "the list is in UTF-16 without a byte order mark", "save it as UTF-8"),
        ("a.jpg\n".encode("utf-16-be"), "the list is in UTF-16 without a byte order mark", "save it as UTF-8"),
        (b"\xff\xfea\0\n\0\0\xd8a\0", "the list is broken: it begins as UTF-16", "save it as UTF-8"),
    ],
    ids=["Windows-1252", "after a mark", "no text", "UTF-32", "UTF-16-LE", "UTF-16-BE", "broken UTF-16"],
)
def test_another_encoding_is_an_error_that_names_it(data: bytes, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        list(read_list(io.BytesIO(data), null=False))
    assert str(caught.value).startswith(message)
    assert hint in str(caught.value.hint)


def test_a_list_of_other_bytes_is_known_by_its_first_name() -> None:
    Path("caf\udce9.jpg").touch()
    listed = read_list(io.BytesIO(b"a.jpg\ncaf\xe9.jpg\ngone\xe9.jpg\n"), null=False)
    assert [source.location for source in listed] == ["a.jpg", "caf\udce9.jpg", "gone\udce9.jpg"]


COMPOSED, DECOMPOSED = "\u00dcbung", "U\u0308bung"


@pytest.mark.parametrize("null", [False, True], ids=["lines", "null"])
@pytest.mark.parametrize(
    ("there", "listed"),
    [
        (f"{COMPOSED}.jpg", f"{DECOMPOSED}.jpg"),
        (f"{DECOMPOSED}.jpg", f"{COMPOSED}.jpg"),
        (f"{COMPOSED}/{DECOMPOSED}.jpg", f"{COMPOSED}/{COMPOSED}.jpg"),
        (f"x\udce9/{DECOMPOSED}/1.jpg", f"x\udce9/{COMPOSED}/1.jpg"),
    ],
)
def test_a_path_may_exist_in_the_other_unicode_form(there: str, listed: str, null: bool) -> None:
    Path(there).parent.mkdir(parents=True, exist_ok=True)
    Path(there).touch()
    data = os.fsencode(listed) + (b"\0" if null else b"\n")
    absolute = os.fsencode(os.path.abspath(listed))
    for entry, found in ((data, there), (absolute, os.path.abspath(there)), (b"gone/\xc3\x9c", "gone/Ü")):
        (source,) = read_list(io.BytesIO(entry), null)
        assert source.location == found
    (typed,) = discover([listed], [], Walk(), Skipped())
    assert typed == Source(there)


def test_a_path_in_both_unicode_forms_is_the_one_that_is_listed() -> None:
    for name in (COMPOSED, DECOMPOSED):
        Path(name).touch()
        assert next(read_list(io.BytesIO(name.encode()), null=False)).location == name


@pytest.mark.parametrize(
    ("entry", "exists", "change"),
    [
        ("pics\\a b.jpg", "pics/a b.jpg", "write / for \\"),
        ('"pics/a b.jpg"', "pics/a b.jpg", "leave out the quotes"),
        ("'pics/a b.jpg'", "pics/a b.jpg", "leave out the quotes"),
        ('"pics\\a b.jpg"', "pics/a b.jpg", "leave out the quotes and write / for \\"),
        ("file://{here}/pics/a%20b.jpg", "{here}/pics/a b.jpg", "write paths, no file:// URLs"),
        ("file://localhost{here}/pics/a b.jpg", "{here}/pics/a b.jpg", "write paths, no file:// URLs"),
        ("file:{here}/pics/a b.jpg", "{here}/pics/a b.jpg", "write paths, no file:// URLs"),
        ("pics\\gone.jpg", None, ""),
        ('"', None, ""),
    ],
)
def test_a_path_that_exists_in_another_spelling_gets_one_notice(
    here: Path, caplog: pytest.LogCaptureFixture, entry: str, exists: str | None, change: str
) -> None:
    os.mkdir("pics")
    Path("pics/a b.jpg").touch()
    entry = entry.format(here=here)
    listed = list(read_list(io.BytesIO(f"x.jpg\n{entry}\n{entry}\n".encode()), null=False))
    assert [source.location for source in listed] == ["x.jpg", entry, entry]
    notice = f"the list has `{entry}`, which does not exist, but `{str(exists).format(here=here)}` does: {change}"
    assert caplog.messages == ([notice] if exists else [])
    if exists:
        with pytest.raises(UsageError, match="does not exist") as caught:
            discover([entry], [], Walk(), Skipped())
        assert caught.value.hint == f"`{exists.format(here=here)}` does: {change}"


def test_a_path_that_exists_as_it_is_spelled_gets_no_notice(caplog: pytest.LogCaptureFixture) -> None:
    os.mkdir("a")
    for name in ("a/b.jpg", "a\\b.jpg", "'c'", "c"):
        Path(name).touch()
    assert len(list(read_list(io.BytesIO(b"a\\b.jpg\n'c'\n"), null=False))) == 2
    assert not caplog.messages
