"""Arguments, folders, globs and lists: images found, their order and names, and skipped entries."""

import io
import itertools
import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from beitcli.errors import ExitStatus, UsageError
from beitcli.inputs.lists import read_list
from beitcli.inputs.sources import Walk, discover, empty_folders, look, shard
from beitcli.records import STDIN, UNKNOWN, Failure, Found, Identity, Skipped, Source
from tests.conftest import unprivileged


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def grow(*names: str) -> None:
    """Create entries in the notation of `ls -F`: `folder/`, `fifo|`, `socket=`, `link -> target`, all else a file."""
    for name in names:
        path, _, target = name.partition(" -> ")
        if os.path.dirname(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
        if target:
            os.symlink(target, path)
        elif path.endswith("|"):
            os.mkfifo(path[:-1])
        elif path.endswith("="):
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(path[:-1])
        elif not path.endswith("/"):
            Path(path).write_bytes(b"image")


def found(*arguments: str, listed: Sequence[Source] = (), **walk: object) -> tuple[list[str], dict[str, int]]:
    """The locations found, and what was skipped."""
    skipped = Skipped()
    items = list(discover(arguments, listed, Walk(**walk), skipped))  # type: ignore[arg-type]
    assert all(isinstance(item, Source) for item in items), items
    return [item.location for item in items if isinstance(item, Source)], dict(skipped)


@pytest.mark.parametrize(
    ("argument", "source"),
    [
        ("pics", "pics/in/x.jpg"),
        ("pics/", "pics/in/x.jpg"),
        ("pics///", "pics/in/x.jpg"),
        ("./pics", "./pics/in/x.jpg"),
        (".//pics/", ".//pics/in/x.jpg"),
        (".", "./pics/in/x.jpg"),
        ("./", "./pics/in/x.jpg"),
        ("..", "../here/pics/in/x.jpg"),
        ("pics/../pics", "pics/../pics/in/x.jpg"),
        ("pics/in", "pics/in/x.jpg"),
        ("{here}", "{here}/pics/in/x.jpg"),
        ("{here}/pics//", "{here}/pics/in/x.jpg"),
        ("pics/in/x.jpg", "pics/in/x.jpg"),
        ("./pics//in/x.jpg", "./pics//in/x.jpg"),
        ("{here}/pics/in/x.jpg", "{here}/pics/in/x.jpg"),
        ("pics/in/*.jpg", "pics/in/x.jpg"),
        ("./*/in/x.jpg", "./pics/in/x.jpg"),
        ("{here}/p*/in/x.jpg", "{here}/pics/in/x.jpg"),
        ("../here/**/x.jpg", "../here/pics/in/x.jpg"),
    ],
)
def test_a_source_is_the_argument_and_the_path_below(here: Path, argument: str, source: str) -> None:
    grow("pics/in/x.jpg")
    assert found(argument.format(here=here)) == ([source.format(here=here)], {})


def test_the_root_folder_is_one_slash() -> None:
    item = next(discover(["/"], [], Walk(suffixes=("",), hidden=True), Skipped()))
    location = item.location if isinstance(item, Source) else item.source.location
    assert location.startswith("/")
    assert not location.startswith("//")


def test_order_is_by_name_bytes_with_each_folder_in_its_place() -> None:
    grow("t/a.jpg", "t/a.b.jpg", "t/a/z.jpg", "t/a/b.jpg", "t/a-/x.jpg", "t/B.jpg", "t/b.jpg", "t/é.jpg", "t/z.jpg")
    grow("t/10.jpg", "t/9.jpg", "t/a/b/c.jpg", "t/ａ.jpg", "t/\U0001f41d.jpg")
    expected = [
        "t/10.jpg",
        "t/9.jpg",
        "t/B.jpg",
        "t/a/b/c.jpg",
        "t/a/b.jpg",
        "t/a/z.jpg",
        "t/a-/x.jpg",
        "t/a.b.jpg",
        "t/a.jpg",
        "t/b.jpg",
        "t/z.jpg",
        "t/é.jpg",
        "t/ａ.jpg",
        "t/\U0001f41d.jpg",
    ]
    assert found("t") == (expected, {})
    assert found("t/**/*.jpg") == (expected, {})


def test_arguments_keep_their_order_and_lists_come_last() -> None:
    grow("b/2.jpg", "a.jpg", "c/1.jpg")
    listed = [Source("gone.jpg"), Source("http://h/x", "url")]
    locations, _ = found("c", "a.jpg", "b", "c/*.jpg", "http://h/y.png", listed=listed)
    assert locations == ["c/1.jpg", "a.jpg", "b/2.jpg", "c/1.jpg", "http://h/y.png", "gone.jpg", "http://h/x"]


WALKS = {
    "hidden names": (["a.jpg", ".b.jpg", ".c/d.jpg"], {}, ["t/a.jpg"], {"hidden": 2}),
    "explicit hidden names": (
        ["a.jpg", ".b.jpg", ".c/d.jpg"],
        {"hidden": True},
        ["t/.b.jpg", "t/.c/d.jpg", "t/a.jpg"],
        {},
    ),
    "a bare suffix is a hidden name": (["a.jpg", ".jpg"], {}, ["t/a.jpg"], {"hidden": 1}),
    "AppleDouble files": (["a.jpg", "._a.jpg"], {"hidden": True}, ["t/a.jpg"], {"system file": 1}),
    "system names are only folders'": (
        ["lost+found.jpg", "@eaDir"],
        {},
        ["t/lost+found.jpg"],
        {"not an image type": 1},
    ),
    "other files": (["a.jpg", "b.txt", "c", "d.jpg.part"], {}, ["t/a.jpg"], {"not an image type": 3}),
    "folders named like images": (["a.jpg/b.jpg"], {}, ["t/a.jpg/b.jpg"], {}),
    "FIFOs and sockets": (["a.jpg", "b.jpg|", "c.jpg="], {}, ["t/a.jpg"], {"not a regular file": 2}),
    "links": (
        ["a.jpg", "b/c.jpg", "d -> b", "e.jpg -> a.jpg", "f.jpg -> gone"],
        {},
        ["t/a.jpg", "t/b/c.jpg"],
        {"link": 3},
    ),
    "links followed": (
        ["a.jpg", "b/c.jpg", "d -> b", "e.jpg -> a.jpg", "f.jpg -> a.txt", "g.txt -> a.jpg", "a.txt"],
        {"follow": True},
        ["t/a.jpg", "t/b/c.jpg", "t/d/c.jpg", "t/e.jpg", "t/f.jpg"],
        {"not an image type": 2},
    ),
    "broken links followed": (
        ["a.jpg", "b.jpg -> gone", "c -> gone/too"],
        {"follow": True},
        ["t/a.jpg"],
        {"not a regular file": 2},
    ),
    "a link to itself followed": (
        ["a.jpg", "b.jpg -> b.jpg", "c.jpg"],
        {"follow": True},
        ["t/a.jpg", "t/c.jpg"],
        {"not a regular file": 1},
    ),
    "a link through a file followed": (
        ["a.jpg", "b.jpg -> a.jpg/c"],
        {"follow": True},
        ["t/a.jpg"],
        {"not a regular file": 1},
    ),
    "links to FIFOs followed": (
        ["a.jpg", "b.jpg -> c", "c|"],
        {"follow": True},
        ["t/a.jpg"],
        {"not a regular file": 2},
    ),
    "a loop to the parent followed": (
        ["a.jpg", "b/c.jpg", "b/up -> .."],
        {"follow": True},
        ["t/a.jpg", "t/b/c.jpg"],
        {"link to a folder above": 1},
    ),
    "a loop to the folder itself followed": (
        ["a.jpg", "b/c.jpg", "b/self -> ."],
        {"follow": True},
        ["t/a.jpg", "t/b/c.jpg"],
        {"link to a folder above": 1},
    ),
    "loops through each other followed": (
        ["a/1.jpg", "a/x -> ../b", "b/2.jpg", "b/y -> ../a"],
        {"follow": True},
        ["t/a/1.jpg", "t/a/x/2.jpg", "t/b/2.jpg", "t/b/y/1.jpg"],
        {"link to a folder above": 2},
    ),
    "hidden links followed": (
        ["a.jpg", ".b -> c", "c/d.jpg"],
        {"follow": True},
        ["t/a.jpg", "t/c/d.jpg"],
        {"hidden": 1},
    ),
    "depth 1": (
        ["a.jpg", "b/c.jpg", "b/d/e.jpg"],
        {"max_depth": 1},
        ["t/a.jpg"],
        {"folder below --max-depth": 1},
    ),
    "depth 2": (
        ["a.jpg", "b/c.jpg", "b/d/e.jpg"],
        {"max_depth": 2},
        ["t/a.jpg", "t/b/c.jpg"],
        {"folder below --max-depth": 1},
    ),
    "depth 3": (["a.jpg", "b/c.jpg", "b/d/e.jpg"], {"max_depth": 3}, ["t/a.jpg", "t/b/c.jpg", "t/b/d/e.jpg"], {}),
    "other suffixes": (
        ["a.jpg", "b.dat", "c.DAT", "d.x.y", "e.y"],
        {"suffixes": (".dat", ".x.y")},
        ["t/b.dat", "t/c.DAT", "t/d.x.y"],
        {"not an image type": 2},
    ),
    "a mixture": (
        ["a.jpg", "b.txt", "c.txt", ".d.jpg", "._e.jpg", "f.jpg|", "g.jpg -> a.jpg", "__MACOSX/h.jpg", "i/j.txt"],
        {},
        ["t/a.jpg"],
        {"not an image type": 3, "hidden": 1, "system file": 2, "not a regular file": 1, "link": 1},
    ),
    "names that shells dislike": (
        ["-rf.jpg", "a b.jpg", "new\nline.jpg", "[1].jpg", "*.jpg", " .jpg", "b\\c.jpg", "d'e\".jpg"],
        {},
        ["t/ .jpg", "t/*.jpg", "t/-rf.jpg", "t/[1].jpg", "t/a b.jpg", "t/b\\c.jpg", "t/d'e\".jpg", "t/new\nline.jpg"],
        {},
    ),
}


@pytest.mark.parametrize(("names", "walk", "expected", "skipped"), WALKS.values(), ids=WALKS)
def test_a_walk_takes_images_and_counts_skipped_entries(
    names: list[str], walk: dict[str, Any], expected: list[str], skipped: dict[str, int]
) -> None:
    grow(*(f"t/{name}" for name in names))
    assert found("t", **walk) == (expected, skipped)


@pytest.mark.parametrize(
    "name",
    [
        "@eaDir",
        "#recycle",
        "#snapshot",
        ".@__thumb",
        ".DocumentRevisions-V100",
        ".Spotlight-V100",
        ".TemporaryItems",
        ".Trashes",
        ".fseventsd",
        "$RECYCLE.BIN",
        "System Volume Information",
        "__MACOSX",
        "lost+found",
        "@Recycle",
        "@Recently-Snapshot",
        "$Recycle.Bin",
        "$recycle.bin",
        "RECYCLER",
        ".Trash-1000",
        ".snapshots",
    ],
)
@pytest.mark.parametrize("hidden", [False, True], ids=["plain", "hidden"])
def test_system_folders_are_skipped(name: str, hidden: bool) -> None:
    grow("t/a.jpg", f"t/{name}/b.jpg")
    assert found("t", hidden=hidden) == (["t/a.jpg"], {"system file": 1})


@pytest.mark.parametrize("name", ["Recycler", "recycle", "snapshots", "Trash-1000", "Recycle.Bin"])
def test_folders_that_are_named_alike_are_not_skipped(name: str) -> None:
    grow(f"t/{name}/b.jpg")
    assert found("t") == ([f"t/{name}/b.jpg"], {})


def skipped_in(folder: str, **walk: object) -> Skipped:
    skipped = Skipped()
    list(discover([folder], [], Walk(**walk), skipped))  # type: ignore[arg-type]
    return skipped


def test_other_types_are_counted_by_suffix() -> None:
    grow("t/a.jpg", *(f"t/{number}.{'MP4' if number % 2 else 'mp4'}" for number in range(7)), "t/x/.hidden")
    grow(*(f"t/x/{number}.xmp" for number in range(5)))
    assert skipped_in("t").text() == "1 hidden, 12 not an image type: .mp4 7, .xmp 5"


def test_suffixes_are_printable_and_few() -> None:
    grow("t/a.jpg", "t/README", "t/Makefile", "t/dot.", "t/evil.\x1b[31m", f"t/long.{'x' * 200}", "t/old.jpg~")
    grow(*(f"t/a{number}.b" for number in range(4)), "t/.rc")
    Path(os.fsdecode(b"t/latin.\xe9")).write_bytes(b"x")
    text = skipped_in("t", hidden=True).text()
    assert text.isprintable()
    assert text.startswith("12 not an image type: .b 4, no suffix 4, ")
    assert text.endswith(", others 1")
    assert {part.rpartition(" ")[0] for part in text.partition(": ")[2].split(", ")} <= {
        ".b", "no suffix", ".\\x1b[31m", ".xxxxxxxxxxx…", ".jpg~", ".\\xe9", "others",
    }  # fmt: skip


def test_only_so_many_suffixes_are_kept_in_memory() -> None:
    skipped = Skipped()
    for number in range(50_000):
        skipped.add_other_type(f"a.{number}")
        skipped.add_other_type("a.mp4")
    assert len(skipped.suffixes) <= 1001
    assert skipped.text() == ("100000 not an image type: .mp4 50000, .0 1, .1 1, .10 1, .100 1, others 49996")


TAKEN = [
    "a.jpg", "a.JPG", "a.Jpeg", "a.jpe", "a.jfif", "a.png", "a.apng", "a.tif", "a.TIFF", "a.webp", "a.gif",
    "a.bmp", "a.heic", "a.HEIC", "a.heif", "a.hif", "a.avif", "a.mpo", "a.jp2", "a.j2k", "a.pgm", "a.ppm",
    "a.ico", "a.psd", "a.tga", "a.qoi", "a.b.jpg", "a.jxl", "a.CR2", "a.nef", "a.dng",
]  # fmt: skip
LEFT = [
    "a.txt", "a.eps", "a.ps", "a.pdf", "a.svg", "a.wmf", "a.emf", "a.fits", "a.h5", "a.grib", "a.bufr",
    "a.mpg", "a.mp4", "a.jpg~", "a.jpg.part", "a_jpg", "jpg", "README",
]  # fmt: skip


def test_suffixes_match_in_any_case() -> None:
    grow(*(f"t/{name}" for name in (*TAKEN, *LEFT)))
    assert found("t") == (sorted(f"t/{name}" for name in TAKEN), {"not an image type": len(LEFT)})


EXCLUDES = {
    "a name": (("b.jpg",), ["a.jpg", "sub/c.jpg", "sub/deep/a.jpg", "thumbs/a.jpg"], 2),
    "names": (("a.*", "c.*"), ["b.jpg", "sub/b.jpg"], 4),
    "a folder": (("thumbs",), ["a.jpg", "b.jpg", "sub/b.jpg", "sub/c.jpg", "sub/deep/a.jpg"], 1),
    "a folder with its slash": (("sub/",), ["a.jpg", "b.jpg", "thumbs/a.jpg"], 1),
    "a path below": (("sub/b.jpg",), ["a.jpg", "b.jpg", "sub/c.jpg", "sub/deep/a.jpg", "thumbs/a.jpg"], 1),
    "a deep folder": (("sub/deep",), ["a.jpg", "b.jpg", "sub/b.jpg", "sub/c.jpg", "thumbs/a.jpg"], 1),
    "a deep path": (("sub/deep/a.jpg",), ["a.jpg", "b.jpg", "sub/b.jpg", "sub/c.jpg", "thumbs/a.jpg"], 1),
    "paths below": (("sub/*",), ["a.jpg", "b.jpg", "thumbs/a.jpg"], 3),
    "a class": (("[ab].jpg",), ["sub/c.jpg"], 5),
    "not the argument": (("t", "t/a.jpg", "A.jpg"), [
        "a.jpg", "b.jpg", "sub/b.jpg", "sub/c.jpg", "sub/deep/a.jpg", "thumbs/a.jpg",
    ], 0),
}  # fmt: skip


@pytest.mark.parametrize(("patterns", "expected", "count"), EXCLUDES.values(), ids=EXCLUDES)
def test_exclude_matches_names_and_paths_below_and_prunes(
    patterns: tuple[str, ...], expected: list[str], count: int
) -> None:
    grow("t/a.jpg", "t/b.jpg", "t/sub/b.jpg", "t/sub/c.jpg", "t/sub/deep/a.jpg", "t/thumbs/a.jpg")
    assert found("t", exclude=patterns) == ([f"t/{name}" for name in expected], {"excluded": count} if count else {})


COMPOSED, DECOMPOSED = "\u00dcbung", "U\u0308bung"


@pytest.mark.parametrize(("name", "pattern"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_patterns_match_names_in_either_unicode_form(name: str, pattern: str) -> None:
    grow(f"t/{name}.jpg", f"t/{name}/a.jpg", "t/b.jpg")
    assert found("t", exclude=(f"{pattern}*",)) == (["t/b.jpg"], {"excluded": 2})
    assert found("t", exclude=(f"{pattern}/a.jpg",))[1] == {"excluded": 1}
    assert found(f"t/{pattern}*")[0] == [f"t/{name}.jpg"]
    assert found(f"t/{pattern}/*")[0] == [f"t/{name}/a.jpg"]  # the folder of a glob is no pattern


PLAIN = ["a.jpg", "b.jpg", "c.txt", "a1/b2.png", "a1/bb2.png", "a1/d.jpg", "a1/x/b3.png", "b1/b2.png"]
GLOBS = {
    "names": (PLAIN, "*.jpg", {}, ["a.jpg", "b.jpg"]),
    "one character": (PLAIN, "?.jpg", {}, ["a.jpg", "b.jpg"]),
    "folders and one character": (PLAIN, "a*/b?.png", {}, ["a1/b2.png"]),
    "any depth": (PLAIN, "**/*.jpg", {}, ["a.jpg", "a1/d.jpg", "b.jpg"]),
    "everything": (
        PLAIN,
        "**",
        {},
        ["a.jpg", "a1/b2.png", "a1/bb2.png", "a1/d.jpg", "a1/x/b3.png", "b.jpg", "b1/b2.png"],
    ),
    "everything in some folders": (PLAIN, "a*/**", {}, ["a1/b2.png", "a1/bb2.png", "a1/d.jpg", "a1/x/b3.png"]),
    "any depth in the middle": (PLAIN, "a1/**/b?.png", {}, ["a1/b2.png", "a1/x/b3.png"]),
    "any depth twice": (PLAIN, "**/x/**/*.png", {}, ["a1/x/b3.png"]),
    "any depth and again": (PLAIN, "**/**/d.jpg", {}, ["a1/d.jpg"]),
    "a plain name behind a glob": (PLAIN, "*/b2.png", {}, ["a1/b2.png", "b1/b2.png"]),
    "one level only": (PLAIN, "*/*", {}, ["a1/b2.png", "a1/bb2.png", "a1/d.jpg", "b1/b2.png"]),
    "a class": (PLAIN, "[ac].jpg", {}, ["a.jpg"]),
    "a range": (PLAIN, "[b-z]?/*[0-9].png", {}, ["b1/b2.png"]),
    "a class negated": (PLAIN, "[!a].jpg", {}, ["b.jpg"]),
    "other files are left": (PLAIN, "[bc].*", {}, ["b.jpg"]),
    "other suffixes": (PLAIN, "*", {"suffixes": (".txt",)}, ["c.txt"]),
    "case matters": (["a.jpg", "A.jpg"], "A*", {}, ["A.jpg"]),
    "depth": (PLAIN, "**/*.png", {"max_depth": 2}, ["a1/b2.png", "a1/bb2.png", "b1/b2.png"]),
    "exclude": (PLAIN, "**/*.jpg", {"exclude": ("a1",)}, ["a.jpg", "b.jpg"]),
    "matched folders are ignored": (["a.jpg/b.jpg", "c.jpg"], "*.jpg", {}, ["c.jpg"]),
    "hidden names do not match": (["a.jpg", ".b.jpg", ".c/d.jpg"], "**/*.jpg", {}, ["a.jpg"]),
    "explicit hidden names": (
        ["a.jpg", ".b.jpg", ".c/d.jpg"],
        "**/*.jpg",
        {"hidden": True},
        [".b.jpg", ".c/d.jpg", "a.jpg"],
    ),
    "a hidden name by its dot": (["a.jpg", ".b.jpg", ".c/d.jpg"], ".*.jpg", {}, [".b.jpg"]),
    "a hidden folder by its dot": (["a.jpg", ".b.jpg", ".c/d.jpg", ".c/.e.jpg"], ".c*/*.jpg", {}, [".c/d.jpg"]),
    "a hidden folder in front": (["a.jpg", ".c/d.jpg", ".c/.e.jpg"], ".c/*.jpg", {}, [".c/d.jpg"]),
    "a hidden folder at any depth": (["a/.c/d.jpg", "a/.x/d.jpg"], "**/.c/*", {}, ["a/.c/d.jpg"]),
    "links are left": (["a.jpg", "b.jpg -> a.jpg", "c -> d", "d/e.jpg"], "**/*.jpg", {}, ["a.jpg", "d/e.jpg"]),
    "links followed": (["a.jpg", "c -> d", "d/e.jpg"], "*/*.jpg", {"follow": True}, ["c/e.jpg", "d/e.jpg"]),
    "FIFOs are left": (["a.jpg", "b.jpg|"], "*.jpg", {}, ["a.jpg"]),
    "system folders are left": (["a.jpg", "@eaDir/a.jpg"], "**/a.jpg", {}, ["a.jpg"]),
    "spaces and newlines": (["a b.jpg", "a\nb.jpg", "ab.jpg"], "a?b.jpg", {}, ["a\nb.jpg", "a b.jpg"]),
    "a bracket escaped": (["[a].jpg", "a.jpg"], "[[]*.jpg", {}, ["[a].jpg"]),
    "a name that exists wins": (["[red].jpg", "r.jpg"], "[red].jpg", {}, ["[red].jpg"]),
    "a star that exists wins": (["*.jpg", "r.jpg"], "*.jpg", {}, ["*.jpg"]),
    "a folder that exists wins": (["[a]/b.jpg", "a/c.jpg"], "[a]", {}, ["[a]/b.jpg"]),
    "read as a glob otherwise": (["[red].jpg", "r.jpg"], "[red]?jpg", {}, ["r.jpg"]),
}


@pytest.mark.parametrize(("names", "pattern", "walk", "expected"), GLOBS.values(), ids=GLOBS)
def test_a_glob_yields_files_in_the_order_of_a_walk(
    names: list[str], pattern: str, walk: dict[str, Any], expected: list[str]
) -> None:
    grow(*names)
    assert found(pattern, **walk)[0] == expected


TYPED = {
    "any name": (["notes.txt", "README"], ["notes.txt", "README"]),
    "hidden": ([".a.jpg", "._b.jpg"], [".a.jpg", "._b.jpg"]),
    "a FIFO": (["pipe|"], ["pipe"]),
    "a link": (["a.jpg", "b -> a.jpg"], ["b"]),
    "a broken link": (["b.jpg -> gone"], ["b.jpg"]),
    "a link to a folder": (["a/c.jpg", "b -> a"], ["b"]),
    "twice": (["a.jpg"], ["a.jpg", "a.jpg"]),
    "twice in other words": (["a.jpg"], ["a.jpg", "./a.jpg"]),
    "names that shells dislike": (
        ["-x.jpg", "a b.jpg", " ", "new\nline.jpg", "[1]", "http:"],
        ["-x.jpg", "a b.jpg", " ", "new\nline.jpg", "[1]", "http:"],
    ),
}


@pytest.mark.parametrize(("names", "arguments"), TYPED.values(), ids=TYPED)
def test_a_typed_input_is_always_taken(names: list[str], arguments: list[str]) -> None:
    grow(*names)
    expected = [f"{argument}/c.jpg" if os.path.isdir(argument) else argument for argument in arguments]
    assert found(*arguments) == (expected, {})


def test_a_folder_named_twice_gives_its_images_twice() -> None:
    grow("t/a.jpg", "t/b.jpg")
    assert found("t", "t/")[0] == ["t/a.jpg", "t/b.jpg"] * 2


@pytest.mark.parametrize(
    "address", ["http://h/a.jpg", "https://h", "HTTP://h/b c", "https://h/*.jpg?x=[1]", "http://h/folder/"]
)
def test_addresses_are_urls_untouched(address: str) -> None:
    assert list(discover([address], [], Walk(), Skipped())) == [Source(address, "url")]


def test_a_path_that_looks_like_an_address_and_exists_is_a_path() -> None:
    grow("http:/h/a.jpg")
    assert list(discover(["http://h/a.jpg"], [], Walk(), Skipped())) == [Source("http://h/a.jpg")]


def test_a_dash_is_standard_input_wherever_it_stands() -> None:
    grow("a.jpg", "-")
    assert list(discover(["a.jpg", "-"], [], Walk(), Skipped())) == [Source("a.jpg"), STDIN]


MISTAKES = {
    "missing": ([], ["gone.jpg"], {}, "`gone.jpg` does not exist", ""),
    "missing behind one that exists": (["a.jpg"], ["a.jpg", "gone.jpg"], {}, "`gone.jpg` does not exist", ""),
    "empty": ([], [""], {}, "`` does not exist", ""),
    "a file as a folder": (["a.jpg"], ["a.jpg/"], {}, "`a.jpg/` does not exist", ""),
    "a path through a file": (["a.jpg"], ["a.jpg/b.jpg"], {}, "`a.jpg/b.jpg` does not exist", ""),
    "a newline in the name": ([], ["a\nb.jpg"], {}, "`a\\nb.jpg` does not exist", ""),
    "another scheme": ([], ["ftp://h/a.jpg"], {}, "does not exist", ""),
    "no match": (["a.jpg"], ["*.png"], {}, "no image matches `*.png`", ""),
    "no match behind one that exists": (["a.jpg"], ["a.jpg", "*.png"], {}, "no image matches `*.png`", ""),
    "no match in no folder": ([], ["gone/*.png"], {}, "no image matches `gone/*.png`", ""),
    "a match that is no image": (["a.txt"], ["a.*"], {}, "no image matches `a.*`", ""),
    "a match that is a folder": (["a.jpg/b.jpg"], ["*.jpg"], {}, "no image matches `*.jpg`", ""),
    "a broken class": ([], ["a[.jpg"], {}, "no image matches `a[.jpg`", ""),
    "an empty folder": (["t/"], ["t"], {}, "no image in `t`", ""),
    "empty folders": (["t/", "u/v/"], ["t", "u"], {}, "no image in `t`, `u`", ""),
    "a folder without images": (
        ["t/a.txt", "t/b.txt", "t/c.txt", "t/.d.jpg", "t/.e.jpg", "t/f.jpg -> a.txt"],
        ["t"],
        {},
        "no image in `t`",
        "skipped: 2 hidden, 1 link, 3 not an image type: .txt 3",
    ),
    "images too deep": (["t/u/a.jpg"], ["t"], {"max_depth": 1}, "no image in `t`", "1 folder below --max-depth"),
    "everything excluded": (["t/a.jpg"], ["t"], {"exclude": ("*",)}, "no image in `t`", "1 excluded"),
    "standard input twice": (["a.jpg"], ["-", "a.jpg", "-"], {}, "`-` is given more than once", ""),
}  # fmt: skip


@pytest.mark.parametrize(("names", "arguments", "walk", "message", "hint"), MISTAKES.values(), ids=MISTAKES)
def test_invalid_arguments_are_a_usage_error_at_once(
    names: list[str], arguments: list[str], walk: dict[str, object], message: str, hint: str
) -> None:
    grow(*names)
    with pytest.raises(UsageError) as caught:
        discover(arguments, [Source("listed.jpg")], Walk(**walk), Skipped())  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert str(caught.value).isprintable()
    assert hint in (caught.value.hint or "")
    assert bool(hint) == bool(caught.value.hint)
    assert caught.value.exit_status == ExitStatus.USAGE == 2


def test_one_empty_folder_among_others_is_no_error() -> None:
    grow("t/a.txt", "u/b.jpg")
    assert found("t", "u") == (["u/b.jpg"], {"not an image type": 1})


def test_no_arguments_and_an_empty_list_are_no_error() -> None:
    assert found() == ([], {})


@pytest.mark.parametrize("argument", ["t", "t/**/*.jpg"], ids=["folder", "glob"])
def test_an_unreadable_folder_is_one_permission_failure_in_its_place(here: Path, argument: str) -> None:
    grow("t/a.jpg", "t/b/x.jpg", "t/b/c/y.jpg", "t/d.jpg")
    here.chmod(0o755)
    os.chmod("t/b", 0)
    try:
        with unprivileged():
            items = list(discover([argument], [], Walk(), Skipped()))
    finally:
        os.chmod("t/b", 0o755)
    first, failure, last = items
    assert (first, last) == (Source("t/a.jpg"), Source("t/d.jpg"))
    assert isinstance(failure, Failure)
    assert (failure.source, failure.code) == (Source("t/b"), "permission")
    assert failure.message.isprintable()


def test_an_unreadable_argument_is_a_failure_and_not_an_empty_folder(here: Path) -> None:
    grow("t/a.jpg")
    here.chmod(0o755)
    os.chmod("t", 0)
    try:
        with unprivileged():
            (failure,) = discover(["t/"], [], Walk(), Skipped())
    finally:
        os.chmod("t", 0o755)
    assert isinstance(failure, Failure)
    assert (failure.source, failure.code) == (Source("t"), "permission")


def test_a_link_into_an_unreadable_folder_costs_only_itself(here: Path) -> None:
    grow("t/a.jpg", "t/b.jpg -> ../locked/b.jpg", "t/c.jpg", "locked/b.jpg")
    here.chmod(0o755)
    os.chmod("locked", 0)
    try:
        with unprivileged():
            items = list(discover(["t"], [], Walk(follow=True), Skipped()))
    finally:
        os.chmod("locked", 0o755)
    assert {Source("t/a.jpg"), Source("t/c.jpg")} <= set(items)


def test_a_folder_that_vanishes_is_one_failure_in_its_place() -> None:
    grow("t/a.jpg", "t/b/x.jpg", "t/c.jpg")
    items = discover(["t"], [], Walk(), Skipped())
    assert next(items) == Source("t/a.jpg")
    shutil.rmtree("t/b")
    failure = next(items)
    assert isinstance(failure, Failure)
    assert (failure.source, failure.code) == (Source("t/b"), "io_error")
    assert failure.message.isprintable()
    assert list(items) == [Source("t/c.jpg")]


def test_a_walk_goes_only_as_far_as_it_is_read() -> None:
    grow("t/a/1.jpg", "t/a/2.jpg")
    grow("t/b/", "t/c/", "u/")
    items = discover(["t", "u"], [], Walk(), Skipped())
    grow("t/b/3.jpg")
    assert next(items) == Source("t/a/1.jpg")
    grow("t/c/4.jpg", "u/5.jpg")
    assert list(items) == [Source(f"t/{name}.jpg") for name in ("a/2", "b/3", "c/4")] + [Source("u/5.jpg")]


def test_a_list_is_read_after_the_arguments_and_only_as_far_as_needed() -> None:
    grow("a.jpg")
    read = []

    def lines() -> Iterator[Source]:
        for number in range(1000):
            read.append(number)
            yield Source(f"{number}.jpg")

    items = discover(["a.jpg"], lines(), Walk(), Skipped())
    assert next(items) == Source("a.jpg")
    assert read == []
    assert list(itertools.islice(items, 3)) == [Source("0.jpg"), Source("1.jpg"), Source("2.jpg")]
    assert read == [0, 1, 2]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"caf\xe9.jpg", "caf\\xe9.jpg"),
        (b"\xff\xfe.jpg", "\\xff\\xfe.jpg"),
        ("café.jpg".encode(), "café.jpg"),
        (b"caf\\xe9.jpg", "caf\\xe9.jpg"),
        (b"\xed\xa0\x80.jpg", "\\xed\\xa0\\x80.jpg"),
    ],
    ids=["latin-1", "no text at all", "utf-8", "a backslash", "a surrogate in utf-8"],
)
def test_names_that_are_not_utf8_open_and_are_shown_escaped(name: bytes, shown: str) -> None:
    os.mkdir("t")
    Path(os.fsdecode(b"t/" + name)).write_bytes(b"image")
    walked, globbed, typed, listed = discover(
        ["t", "t/*.jpg", os.fsdecode(b"t/" + name)], read_list(io.BytesIO(b"t/" + name), null=False), Walk(), Skipped()
    )
    assert walked == globbed == typed == listed
    assert isinstance(walked, Source)
    assert walked.name == f"t/{shown}"
    assert os.fsencode(walked.location) == b"t/" + name
    assert Path(walked.location).read_bytes() == b"image"


def test_such_a_name_of_a_folder_works_too() -> None:
    os.makedirs(b"t/\xe9\xe8/in")
    Path(os.fsdecode(b"t/\xe9\xe8/in/a.jpg")).write_bytes(b"image")
    os.mkdir(b"t/\xe9\xe8/gone")
    Path(os.fsdecode(b"t/\xe9\xe8/a.jpg")).write_bytes(b"image")
    items = discover(["t"], [], Walk(), Skipped())
    first = next(items)
    os.rmdir(b"t/\xe9\xe8/gone")
    failure, last = items
    assert isinstance(first, Source)
    assert isinstance(last, Source)
    assert isinstance(failure, Failure)
    assert [first.name, failure.source.name, last.name] == [
        f"t/\\xe9\\xe8/{name}" for name in ("a.jpg", "gone", "in/a.jpg")
    ]


SHARDED: list[Found] = [
    Source("pics/0.jpg"),
    Source("pics/1.jpg"),
    Source(os.fsdecode(b"caf\xe9.jpg")),
    Source("日本.jpg"),
    Source("http://h/a.png", "url"),
    STDIN,
    Failure(Source("pics/closed"), "permission", "closed"),
    Source("pics/0.jpg"),
]


@pytest.mark.parametrize(
    ("count", "numbers"),
    [
        (1, [1, 1, 1, 1, 1, 1, 1, 1]),
        (2, [2, 1, 2, 2, 1, 1, 2, 2]),
        (3, [2, 3, 3, 2, 1, 3, 2, 2]),
        (1000, [414, 133, 802, 632, 413, 155, 828, 414]),
    ],
)
def test_a_name_belongs_to_one_shard_for_ever(count: int, numbers: list[int]) -> None:
    """Machines share the work by these numbers, so they must never change."""
    for number in set(numbers):
        expected = [item for item, its in zip(SHARDED, numbers, strict=True) if its == number]
        assert list(shard(SHARDED, number, count)) == expected


def test_shards_are_disjoint_and_complete_and_keep_the_order() -> None:
    items = [Source(f"{number}.jpg") for number in range(1000)]
    parts = [list(shard(items, number, 7)) for number in range(1, 8)]
    everything = [item for part in parts for item in part]
    assert (len(everything), set(everything)) == (len(items), set(items))
    assert all(part == [item for item in items if item in part] for part in parts)
    assert all(100 < len(part) < 190 for part in parts)


def test_shards_are_cut_lazily() -> None:
    endless = (Source(f"{number}.jpg") for number in itertools.count())
    assert len(list(itertools.islice(shard(endless, 2, 3), 5))) == 5


def test_look_adds_size_and_time_or_gives_the_failure() -> None:
    grow("a.jpg", "folder/", "pipe|", "link.jpg -> a.jpg", "nowhere.jpg -> missing", "loop.jpg -> loop.jpg")
    os.makedirs("folder", exist_ok=True)
    os.utime("a.jpg", ns=(5, 1_700_000_000_123_456_789))
    here = Identity(size=5, mtime_ns=1_700_000_000_123_456_789)
    cases: list[tuple[Found, object]] = [
        (Source("a.jpg"), here),
        (Source("link.jpg"), here),
        (Source("missing.jpg"), "not_found"),
        (Source("nowhere.jpg"), "not_found"),
        (Source("a.jpg/b.jpg"), "not_found"),
        (Source("a\0b.jpg"), "not_found"),
        (Source("folder"), "not_an_image"),
        (Source("loop.jpg"), UNKNOWN),
        (Source("pipe"), UNKNOWN),
        (Source("http://h/a.jpg", "url"), UNKNOWN),
        (STDIN, UNKNOWN),
        (Failure(Source("closed"), "permission", "closed"), "permission"),
    ]
    looked = list(look(item for item, _ in cases))
    assert [item.code if isinstance(item, Failure) else item.known for item in looked] == [
        expected for _, expected in cases
    ]
    assert [item.source if isinstance(item, Failure) else item for item in looked] == [
        item.source if isinstance(item, Failure) else item for item, _ in cases
    ]


def test_look_leaves_an_unreadable_folder_to_reading(here: Path) -> None:
    grow("closed/a.jpg")
    here.chmod(0o755)
    os.chmod("closed", 0)
    try:
        with unprivileged():
            looked = list(look([Source("closed/a.jpg")]))
    finally:
        os.chmod("closed", 0o755)
    assert [item.known for item in looked if isinstance(item, Source)] == [UNKNOWN]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["full"], []),
        (["full", "empty"], ["empty"]),
        (["empty/", "full", "./texts"], ["empty/", "./texts"]),
        (["full", "full/in"], []),
        (["full", "full/none"], ["full/none"]),
        (["full", "full/**/*.jpg"], []),
        (["full/in/x.jpg"], []),
        (["full", "http://h/a.jpg"], []),
    ],
    ids=str,
)
def test_folders_without_an_image(arguments: list[str], expected: list[str]) -> None:
    grow("full/in/x.jpg", "texts/notes.txt")
    for folder in ("empty", "full/none"):
        os.makedirs(folder)
    assert empty_folders(arguments, Walk()) == expected


def test_an_unreadable_folder_is_one_without_an_image(here: Path) -> None:
    grow("full/x.jpg", "closed/x.jpg")
    here.chmod(0o755)
    os.chmod("closed", 0)
    try:
        with unprivileged():
            assert empty_folders(["full", "closed"], Walk()) == ["closed"]
    finally:
        os.chmod("closed", 0o755)
