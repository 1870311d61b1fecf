"""A file is replaced only when it is complete."""

import os
import stat
import threading
from pathlib import Path

import pytest

from beitcli.errors import OutputError
from beitcli.outputs.destination import check_writable, is_stream, replaced_file, stream_to


def write(path: Path, text: str = "new\n") -> None:
    destination = stream_to(str(path)) if is_stream(str(path)) else replaced_file(str(path), keeps_part=True)
    with destination as stream:
        stream.write(text.encode())


def test_the_file_appears_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old\n")
    with replaced_file(str(path), keeps_part=True) as stream:
        stream.write(b"new\n")
        stream.flush()
        assert path.read_text() == "old\n"
        assert Path(f"{path}.part").read_text() == "new\n"
    assert path.read_text() == "new\n"
    assert os.listdir(tmp_path) == ["out.csv"]


def test_an_exception_leaves_the_old_file_and_the_part(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old\n")
    with pytest.raises(ZeroDivisionError), replaced_file(str(path), keeps_part=True) as stream:
        stream.write(b"half")
        raise ZeroDivisionError
    assert path.read_text() == "old\n"
    assert Path(f"{path}.part").read_text() == "half"


def test_a_link_stays_and_its_target_keeps_its_mode(tmp_path: Path) -> None:
    target, link = tmp_path / "target.csv", tmp_path / "link.csv"
    target.write_text("old\n")
    target.chmod(0o640)
    link.symlink_to(target)
    write(link)
    assert link.is_symlink()
    assert target.read_text() == "new\n"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_new_file_has_the_mode_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write(tmp_path / "out.csv")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out.csv").stat().st_mode) == 0o640


def test_a_fifo_is_streamed_to(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(path.read_text()))
    reader.start()
    write(path)
    reader.join()
    assert read == ["new\n"]
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_a_pipe_by_its_name_in_dev_is_streamed_to() -> None:
    ours, theirs = os.pipe()
    write(Path(f"/dev/fd/{theirs}"))
    os.close(theirs)
    with open(ours) as stream:
        assert stream.read() == "new\n"


def test_a_device_that_is_full_at_the_end_is_one_error() -> None:
    with pytest.raises(OutputError, match="No space left"), stream_to("/dev/full") as stream:
        stream.write(b"x")


def test_an_unneeded_part_is_removed(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), replaced_file(str(tmp_path / "out.csv"), keeps_part=False):
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []


def test_a_leftover_part_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out.csv.part").write_text("much longer than what comes now\n")
    write(tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "new\n"


def test_the_part_has_the_mode_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.touch(0o600)
    with replaced_file(str(path), keeps_part=True):
        assert stat.S_IMODE(Path(f"{path}.part").stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["missing/out.csv", "folder", "new/", ""])
def test_an_unwritable_path_is_detected_before(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError):
        check_writable(f"{tmp_path}/{name}" if name else "")
