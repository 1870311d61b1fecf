"""Images in folders by their labels, and back: what goes where, under which name, and what is left."""

import json
import os
import shutil
import subprocess
import tempfile
import unicodedata
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest

from beitcli.errors import BeitError, BusyError, OutputError, UsageError
from beitcli.jobs.observer import Silent
from beitcli.jobs.result_files import ResultFiles
from beitcli.jobs.sorting import SortRequest, preview_sorting, preview_undoing, sort
from tests.conftest import unprivileged
from tests.sorting.test_killing import elsewhere
from tests.sorting.trees import failed, fill, ok, results, sorted_into, tree, undone

assert elsewhere  # a fixture


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of images, `photos` from the current one."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    fill(folder, "a.jpg", "b.jpg", "c.jpg", "sub/a.jpg")
    return folder


@pytest.fixture
def predictions(photos: Path) -> Path:
    lines = [ok("photos/a.jpg", "cat"), ok("photos/b.jpg", "dog", 0.4), failed("photos/c.jpg")]
    return results(photos.parent / "preds.jsonl", *lines, ok("photos/sub/a.jpg", "cat"))


TO = Path("sorted")

PLACES = {
    "photos/a.jpg": "cat/a.jpg",
    "photos/b.jpg": "dog/b.jpg",
    "photos/c.jpg": "failed/truncated/c.jpg",
    "photos/sub/a.jpg": "cat/a_2.jpg",
}


@pytest.mark.parametrize("mode", ["copy", "move", "hardlink", "symlink"])
def test_every_image_is_in_the_folder_of_its_label_and_comes_back(photos: Path, predictions: Path, mode: str) -> None:
    before = tree(photos)
    times = {path: os.stat(path).st_mtime_ns for path in PLACES}
    done = sorted_into(TO, predictions, mode=mode)
    assert (done.done, done.kept, done.failed, done.left.total()) == (4, 0, (), 0)
    for source, place in PLACES.items():
        if mode == "symlink":
            assert os.readlink(TO / place) == str(photos.parent / source)
        assert (TO / place).read_bytes() == before[source.removeprefix("photos/")]
        assert (TO / place).stat().st_mtime_ns == times[source]
        assert (mode == "hardlink") == (os.path.exists(source) and mode != "symlink" and (TO / place).samefile(source))
    assert tree(photos) == ({} if mode == "move" else before)
    again = sorted_into(TO, predictions, mode=mode)
    assert (again.done, again.kept, again.failed) == (0, 4, ())
    moved = 4 if mode == "move" else 0
    preview, back = preview_undoing(str(TO)), undone(TO)
    assert (preview.moved, preview.deleted) == (back.moved, back.deleted) == (moved, 4 - moved)
    assert (tree(photos), TO.exists(), back.left) == (before, False, ())


def test_a_folder_that_was_there_stays_with_what_is_in_it(photos: Path, predictions: Path) -> None:
    fill(TO, "cat/a.jpg", "mine.txt")
    (TO / "dog").mkdir()
    before = tree(TO)
    sorted_into(TO, predictions, mode="move")
    assert tree(TO)["cat/a.jpg"] == before["cat/a.jpg"]
    assert {"cat/a_2.jpg", "cat/a_3.jpg"} < tree(TO).keys()
    undone(TO)
    assert (tree(TO), sorted(os.listdir(TO))) == (before, ["cat", "dog", "mine.txt"])


def test_the_threshold_and_corrections(photos: Path, predictions: Path) -> None:
    table = Path("corrections.csv")
    table.write_text("path,label\nphotos/sub/a.jpg,ape\nphotos/c.jpg,dog\nphotos/a.jpg,cat\nphotos/z.jpg,cat\n")
    sorted_into(TO, predictions, threshold=0.5, corrections=str(table))
    assert tree(TO).keys() == {"cat/a.jpg", "unsure/b.jpg", "dog/c.jpg", "ape/a.jpg"}


def test_an_image_without_a_label_is_unsure(photos: Path) -> None:
    sorted_into(TO, results(Path("p.jsonl"), ok("photos/a.jpg", None)))
    assert tree(TO).keys() == {"unsure/a.jpg"}


@pytest.mark.parametrize("mode", ["copy", "move", "symlink"])
def test_corrected_images_change_their_folder(photos: Path, predictions: Path, mode: str) -> None:
    before = tree(photos)
    fill(photos, "sub/a.xmp")
    sorted_into(TO, predictions, mode=mode)
    fill(TO, "dog/b.jpg.xmp")  # by another program, since
    table = Path("corrections.csv")
    table.write_text("path,label\nphotos/sub/a.jpg,ape\nsorted/dog/b.jpg,bee\nphotos/c.jpg,bee\n")
    done = sorted_into(TO, predictions, mode=mode, corrections=str(table))
    assert (done.done, done.kept) == (3, 1)
    places = {"cat/a.jpg", "ape/a_2.jpg", "ape/a_2.xmp", "bee/b.jpg", "bee/b.jpg.xmp", "bee/c.jpg"}
    assert tree(TO).keys() == places
    assert sorted_into(TO, predictions, mode=mode, corrections=str(table)).kept == 4
    undone(TO)
    left = {"photos/b.jpg.xmp"} if mode == "move" else {"sorted/dog/b.jpg.xmp"}
    after = {f"photos/{name}" for name in before} | {"photos/sub/a.xmp"} | left
    assert {name for name in tree(Path()) if name.startswith(("photos", "sorted"))} == after


def test_sidecars_go_with_their_image_under_its_name(photos: Path) -> None:
    fill(photos, "x/1.jpg", "x/1.xmp", "x/1.jpg.XMP", "x/1.json", "x/1.CR2", "x/1.png", "x/10.xmp", "x/1.txt")
    fill(photos, "y/1.jpg", "y/1.jpg.xmp", "z/2.cr2", "z/2.xmp", "z/1.cr2")
    names = ["x/1.CR2", "x/1.jpg", "x/1.png", "y/1.jpg", "z/2.cr2", "z/1.cr2"]
    lines = [ok(f"photos/{name}", "dog" if name == "x/1.CR2" else "cat") for name in names]
    predictions = results(Path("p.jsonl"), *lines)
    done = sorted_into(TO, predictions, mode="move")
    assert (done.done, done.sidecars, done.left) == (5, 6, {"raw of another image, with which it goes": 1})
    placed = {"1.jpg", "1.xmp", "1.jpg.XMP", "1.json", "1.CR2", "1_2.png", "2.cr2", "2.xmp"}
    assert {path.name for path in (TO / "cat").iterdir()} >= placed
    assert (TO / "cat" / "1_3.jpg").exists() == (TO / "cat" / "1_3.jpg.xmp").exists()
    assert {"x/10.xmp", "x/1.txt"} <= tree(photos).keys()
    undone(TO)
    assert (TO.exists(), len(tree(photos))) == (False, 17)


def test_very_long_names_are_cut_to_get_a_number(photos: Path) -> None:
    for folder in "xyz":
        fill(photos, f"{folder}/{'ü' * 123}.jpg", f"{folder}/{'ü' * 123}.jpg.xmp")
    lines = [ok(f"photos/{folder}/{'ü' * 123}.jpg", "cat") for folder in "xyz"]
    assert sorted_into(TO, results(Path("p.jsonl"), *lines)).failed == ()
    stems = ["ü" * 123, "ü" * 122 + "_2", "ü" * 122 + "_3"]
    assert tree(TO).keys() == {f"cat/{stem}.jpg{end}" for stem in stems for end in ("", ".xmp")}


def test_names_that_differ_in_case_alone(photos: Path) -> None:
    fill(photos, "x/CAT.jpg", "x/CAT.xmp", "y/cat.jpg", "y/cat.xmp")
    lines = [ok("photos/x/CAT.jpg", "cat"), ok("photos/y/cat.jpg", "cat")]
    sorted_into(TO, results(Path("p.jsonl"), *lines))
    second = "cat_2" if (TO / "cat" / "Cat.jpg").exists() else "cat"  # where case makes no difference
    assert tree(TO).keys() == {"cat/CAT.jpg", "cat/CAT.xmp", f"cat/{second}.jpg", f"cat/{second}.xmp"}


def test_names_in_any_bytes_and_unicode_form(photos: Path) -> None:
    name = unicodedata.normalize("NFD", "Bär.jpg")
    fill(photos, name)
    Path(os.fsdecode(b"photos/\xff.jpg")).write_bytes(b"latin")
    lines = [ok("photos/" + unicodedata.normalize("NFC", name), "cat"), ok("photos/\\xff.jpg", "cat")]
    sorted_into(TO, results(Path("p.jsonl"), *lines), mode="move")
    assert sorted(os.listdir(b"sorted/cat")) == sorted([name.encode(), b"\xff.jpg"])
    undone(TO)
    assert os.path.exists(b"photos/\xff.jpg")


def test_an_image_listed_twice_is_sorted_once(photos: Path, predictions: Path) -> None:
    (photos.parent / "link").symlink_to(photos)
    other = results(Path("other.jsonl"), ok("./link/a.jpg", "cat"))
    done = sorted_into(TO, predictions, other, predictions)
    assert (done.done, done.left) == (4, {"listed twice": 5})
    with pytest.raises(UsageError, match=r"two results that differ, such as `photos/a.jpg`"):
        sorted_into(TO, results(Path("other.jsonl"), ok("photos/a.jpg", "dog")), predictions)


def test_missing_images_are_failures_and_a_wrong_folder_an_error(photos: Path, predictions: Path) -> None:
    (photos / "a.jpg").unlink()
    (photos / "c.jpg").unlink()  # had failed already
    done = sorted_into(TO, predictions)
    assert (done.done, done.failed) == (2, (("photos/a.jpg", "no such file: was it moved or deleted since?"),))
    os.chdir(photos)
    with pytest.raises(UsageError, match=r"no image can be sorted, such as `photos/a.jpg`") as raised:
        sorted_into(Path("new"), predictions)
    assert "relative to another folder" in str(raised.value.hint)
    assert not Path("new").exists()


def test_images_that_changed_since_their_results_are_named(
    photos: Path, predictions: Path, caplog: pytest.LogCaptureFixture
) -> None:
    os.utime(photos / "b.jpg", ns=(0, predictions.stat().st_mtime_ns + 10**9))
    assert sorted_into(TO, predictions).done == 4
    assert "1 images have changed since the results were written, such as photos/b.jpg" in caplog.text


def test_what_cannot_be_sorted_is_left_and_counted(photos: Path) -> None:
    (photos / "link.jpg").symlink_to("a.jpg")
    lines = [ok("-", "cat"), ok("https://example.org/a.jpg", "cat"), failed("https://example.org/b.jpg", "http_404")]
    lines += [failed("photos/gone.jpg", "not_found"), failed("photos/sub", "permission"), ok("photos/link.jpg", "cat")]
    done = sorted_into(TO, results(Path("p.jsonl"), *lines, failed("photos/a.jpg")), mode="move")
    assert (done.done, done.failed, done.left) == (
        1,
        (),
        {
            "standard input": 1,
            "URL, which only `copy=True` takes": 1,
            "URL that failed": 1,
            "failed, and no file": 2,
            "link, which `move=True` leaves": 1,
        },
    )
    done = sorted_into(Path("other"), results(Path("p.jsonl"), failed("photos/b.jpg")), failures="leave")
    assert (done.done, done.left) == (0, {"failed": 1})
    assert not Path("other").exists()


def test_links_give_what_they_lead_to(photos: Path) -> None:
    (photos / "link.jpg").symlink_to("a.jpg")
    listed = results(Path("p.jsonl"), ok("photos/link.jpg", "cat"))
    for mode in ("copy", "hardlink", "symlink"):
        sorted_into(Path(mode), listed, mode=mode)
        assert Path(mode, "cat/link.jpg").read_bytes() == (photos / "a.jpg").read_bytes()
        assert Path(mode, "cat/link.jpg").is_symlink() == (mode == "symlink")
        undone(Path(mode))
    assert (photos / "link.jpg").is_symlink()


def test_identical_images_are_one_if_asked(photos: Path) -> None:
    for name in ("a_copy.jpg", "sub/c.jpg"):
        shutil.copy(photos / "a.jpg", photos / name)
    names = ["a.jpg", "a_copy.jpg", "b.jpg", "sub/a.jpg", "sub/c.jpg"]
    listed = results(
        Path("p.jsonl"), *(ok(f"photos/{name}", "dog" if name == "sub/c.jpg" else "cat") for name in names)
    )
    for _ in range(2):
        done = sorted_into(TO, listed, mode="move", dedupe=True)
        assert done.left == {"the same bytes as another": 1}
        assert tree(TO).keys() == {"cat/a.jpg", "cat/b.jpg", "cat/a_2.jpg", "dog/c.jpg"}
        assert "a_copy.jpg" in tree(photos)


@pytest.mark.parametrize("mode", ["copy", "move"])
def test_a_sorted_folder_among_the_images(photos: Path, predictions: Path, mode: str) -> None:
    before, to = tree(photos), photos / "sorted"
    sorted_into(to, predictions, mode=mode)
    after = tree(photos)
    lines = [ok(f"photos/sorted/{place}", "dog") for place in PLACES.values()]
    if mode == "copy":
        lines += [ok(source, "dog") for source in PLACES]
    assert sorted_into(to, results(Path("new.jsonl"), *lines[:4]), mode=mode).done == 3
    assert sorted_into(to, results(Path("new.jsonl"), *lines), mode=mode).done == 0
    assert len(tree(photos)) == len(after)
    undone(to)
    assert tree(photos) == before


def test_images_sorted_in_their_own_folder(photos: Path, predictions: Path) -> None:
    before = tree(photos)
    sorted_into(photos, predictions, mode="move")
    assert tree(photos).keys() == set(PLACES.values())
    (photos / "beit-sort.jsonl").rename("journal")
    places = [ok(f"photos/{place}", place.partition("/")[0]) for place in PLACES.values() if "failed" not in place]
    assert sorted_into(photos, results(Path("new.jsonl"), *places)).kept == 3
    Path("journal").rename(photos / "beit-sort.jsonl")
    undone(photos)
    assert tree(photos) == before


def test_a_new_image_under_the_name_of_one_that_was_sorted(photos: Path, predictions: Path) -> None:
    for mode in ("move", "copy"):
        to = Path(mode)
        sorted_into(to, predictions, mode=mode)
        (photos / "b.jpg").unlink(missing_ok=True)
        (photos / "b.jpg").write_bytes(mode.encode())
        done = sorted_into(to, predictions, mode=mode)
        assert (done.done, done.kept) == (1, 3)
        assert (to / "dog" / "b_2.jpg").read_bytes() == mode.encode()
        assert [name for name, _ in undone(to).left] == ["dog/b.jpg"]


def test_undoing_deletes_nothing_that_is_not_there_twice(photos: Path, predictions: Path) -> None:
    sorted_into(TO, predictions)
    (TO / "cat/a.jpg").write_bytes(b"edited")
    (photos / "b.jpg").unlink()
    fill(TO, "cat/mine.txt")
    (TO / "failed/truncated/c.jpg").unlink()
    back = undone(TO)
    assert back.left == (("dog/b.jpg", "its original is gone"), ("cat/a.jpg", "it differs from its original"))
    assert tree(TO).keys() == {"cat/a.jpg", "dog/b.jpg", "cat/mine.txt"}
    shutil.copy(TO / "dog/b.jpg", photos)
    assert undone(TO).left == (("cat/a.jpg", "it differs from its original"),)


def test_undoing_moves_edited_images_back_and_over_no_other(photos: Path, predictions: Path) -> None:
    sorted_into(TO, predictions, mode="move")
    (TO / "cat/a.jpg").write_bytes(b"edited")
    (photos / "b.jpg").write_bytes(b"another")
    (TO / "failed/truncated/c.jpg").unlink()
    (photos / "sub").rmdir()
    back = undone(TO)
    assert back.left == (
        ("failed/truncated/c.jpg", "it is in neither place"),
        ("dog/b.jpg", f"another file is at `{photos / 'b.jpg'}`"),
    )
    assert ((photos / "a.jpg").read_bytes(), (photos / "b.jpg").read_bytes()) == (b"edited", b"another")
    assert (tree(TO).keys(), (photos / "sub/a.jpg").exists()) == ({"dog/b.jpg"}, True)


def test_hard_links_are_not_the_last_name_of_an_image(photos: Path, predictions: Path) -> None:
    sorted_into(TO, predictions, mode="hardlink")
    (photos / "a.jpg").unlink()
    (photos / "b.jpg").rename("b")
    shutil.copy("b", photos / "b.jpg")
    assert [name for name, _ in undone(TO).left] == ["dog/b.jpg", "cat/a.jpg"]


def test_no_hard_links_to_another_file_system(photos: Path, predictions: Path, elsewhere: Path) -> None:
    with pytest.raises(UsageError, match=r"`photos/a.jpg` is on another file system"):
        sorted_into(elsewhere / "new", predictions, mode="hardlink")
    assert tree(elsewhere) == {}


@pytest.mark.parametrize("mode", ["copy", "move", "symlink"])
def test_to_another_file_system_and_back(photos: Path, predictions: Path, elsewhere: Path, mode: str) -> None:
    before = tree(photos)
    os.chmod(photos / "a.jpg", 0o640)
    os.utime(photos / "a.jpg", ns=(5, 123_456_789))
    assert sorted_into(elsewhere / "new", predictions, mode=mode).done == 4
    status = (elsewhere / "new" / "cat" / "a.jpg").stat()
    assert (status.st_mode & 0o777, status.st_mtime_ns) == (0o640, 123_456_789)
    undone(elsewhere / "new")
    assert (tree(photos), tree(elsewhere)) == (before, {})
    assert (photos / "a.jpg").stat().st_mtime_ns == 123_456_789


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(disk)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("mode", ["copy", "move"])
def test_a_full_disk_ends_it_and_all_comes_back(photos: Path, tiny_disk: Path, mode: str) -> None:
    names = [f"{number}.jpg" for number in range(10)]
    fill(photos, *names, size=50_000)
    predictions = results(Path("p.jsonl"), *(ok(f"photos/{name}", "cat") for name in names))
    before, to = tree(photos), tiny_disk / "sorted"
    for _ in range(2):
        with pytest.raises(OutputError, match="No space left on device") as raised:
            sorted_into(to, predictions, mode=mode)
        assert "make room" in str(raised.value.hint)
        found = {**tree(photos), **{name.removeprefix("cat/"): data for name, data in tree(to).items()}}
        assert (found, len(tree(to)) > 2) == (before, True)
        assert not list(to.rglob(".*"))
    (tiny_disk / "filler").write_bytes(b"")
    with (tiny_disk / "filler").open("wb", 0) as filler:  # not a byte is free
        while filler.write(b"x" * 4096) == 4096 and os.statvfs(tiny_disk).f_bavail:
            pass
    undone(to)
    assert (tree(photos), to.exists()) == (before, False)


def test_read_only_sources_are_not_moved(photos: Path, predictions: Path, elsewhere: Path) -> None:
    before = tree(photos)
    for folder in takewhile(lambda folder: folder != Path(tempfile.gettempdir()), photos.parents):
        folder.chmod(0o755)
    elsewhere.chmod(0o777)
    Path("here").mkdir()
    Path("here").chmod(0o777)
    for folder in (photos, photos / "sub"):
        folder.chmod(0o555)
    with unprivileged():
        for to in (Path("here/new").resolve(), elsewhere / "new"):
            done = sorted_into(to, predictions, mode="move")
            assert (done.done, {reason for _, reason in done.failed}) == (0, {"Permission denied"})
            assert (tree(photos), tree(to)) == (before, {})


def test_a_second_run_into_the_folder_is_refused(photos: Path, predictions: Path) -> None:
    def second(_: object) -> None:
        with pytest.raises(BusyError, match="another run"):
            sorted_into(TO, predictions)
        with pytest.raises(BusyError):
            undone(TO)

    assert sort(SortRequest(ResultFiles((str(predictions),)), str(TO)), Silent(), second).done == 4


def test_a_preview_changes_nothing(photos: Path, predictions: Path) -> None:
    before = tree(Path())
    plan = preview_sorting(SortRequest(ResultFiles((str(predictions),)), str(TO)), Silent())
    assert (plan.by_folder(), TO.exists()) == ({"cat": 2, "dog": 1, "failed/truncated": 1}, False)
    assert tree(Path()) == before


def test_a_name_that_another_program_takes_meanwhile(photos: Path, predictions: Path) -> None:
    sorted_into(TO, predictions, mode="move")
    [*lines, _, _, _, _] = (TO / "beit-sort.jsonl").read_text().splitlines()  # as if killed before the first step
    undone(TO)
    fill(TO, "cat/a.jpg")
    (TO / "beit-sort.jsonl").write_text("\n".join(lines) + '\n{"do')
    assert sorted_into(TO, predictions, mode="move").done == 4
    assert tree(TO).keys() == {"cat/a.jpg", "cat/a_2.jpg", "cat/a_3.jpg", "dog/b.jpg", "failed/truncated/c.jpg"}
    assert all(json.loads(line) for line in (TO / "beit-sort.jsonl").read_text().splitlines())


@pytest.mark.parametrize("mode", ["copy", "move", "symlink"])
def test_a_sorted_folder_may_move(photos: Path, predictions: Path, mode: str) -> None:
    before = tree(photos)
    sorted_into(TO, predictions, mode=mode)
    TO.rename("elsewhere")
    assert sorted_into(Path("elsewhere"), predictions, mode=mode).kept == 4
    assert undone(Path("elsewhere")).left == ()
    assert (tree(photos), Path("elsewhere").exists()) == (before, False)


@pytest.mark.parametrize(("key", "value"), [("folder", "../photos"), ("folder", "/etc"), ("new", "../../photos/b.jpg")])
def test_a_journal_leads_nowhere_else(photos: Path, predictions: Path, key: str, value: str) -> None:
    sorted_into(TO, predictions)
    journal = TO / "beit-sort.jsonl"
    text = journal.read_text().replace('"folder": "dog", "names": [["b.jpg", "b.jpg"]]', "HERE")
    folder, name = (value, "b.jpg") if key == "folder" else ("dog", value)
    journal.write_text(text.replace("HERE", f'"folder": "{folder}", "names": [["b.jpg", "{name}"]]'))
    with pytest.raises(BeitError, match="no line of a journal"):
        undone(TO)


@pytest.mark.parametrize("line", ["no JSON", "[]", '{"other": 1}', '{"version": 2, "token": "x", "made": true}'])
def test_a_journal_of_others_is_an_error(photos: Path, predictions: Path, line: str) -> None:
    TO.mkdir()
    (TO / "beit-sort.jsonl").write_text(f"{line}\n")
    with pytest.raises(BeitError, match="line 1: no line of a journal"):
        sorted_into(TO, predictions)
    assert (TO / "beit-sort.jsonl").read_text() == f"{line}\n"
