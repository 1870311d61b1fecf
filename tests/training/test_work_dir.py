"""The new model in the place of an earlier one."""

from pathlib import Path

import pytest

from beitcli.errors import UsageError
from beitcli.training import work_dir
from beitcli.training.work_dir import WorkDir


def model(folder: Path, content: str) -> Path:
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_text(content)
    return folder


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_model_is_replaced_once_the_new_one_is_complete(
    can_exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not can_exchange:
        monkeypatch.setattr(work_dir, "_EXCHANGE", 1 << 20)  # no such flag
    out = model(tmp_path / "out", "old")
    work = WorkDir(str(out), replace=True)
    work.check()
    work.start()
    new = model(tmp_path / "out.part" / "model", "new")
    assert (out / "config.json").read_text() == "old"
    work.finish(str(new), "a card")
    assert {path.name: path.read_text() for path in out.iterdir()} == {
        "README.md": "a card",
        "config.json": "new",
        "model.safetensors": "new",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_only_a_model_is_replaced_and_only_if_asked(tmp_path: Path) -> None:
    out = model(tmp_path / "out", "old")
    with pytest.raises(UsageError, match="exists already") as error:
        WorkDir(str(out)).check()
    assert error.value.hint and "`replace=True`" in error.value.hint
    (out / "notes.txt").touch()
    with pytest.raises(UsageError, match=r"holds `notes\.txt`, and would be replaced"):
        WorkDir(str(out), replace=True).check()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "README.md").touch()
    with pytest.raises(UsageError, match="is no model"):
        WorkDir(str(tmp_path / "other"), replace=True).check()
