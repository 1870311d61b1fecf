"""Settings of an unfinished training against those of this run."""

from collections.abc import Mapping
from typing import Any

from beitcli.records import printable

IMAGES = "images"
"""The setting that holds the digest of all images, which no message shows."""

MODEL = "model"
"""The setting that holds name and digest of the base model; only the digest decides."""

WAY = "way"
"""The setting that holds the way of training."""

_REPEAT_OR_DELETE = "repeat its command to go on, or delete that folder to start over"


def base_model(name: str, digest: str) -> dict[str, str]:
    """The value of the setting MODEL."""
    return {"name": name, "digest": digest}


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, str] | None:
    """The first setting in which an unfinished training differs, as the rest of a message about it, and a hint."""
    changed = [name for name in now if _decisive(before.get(name)) != _decisive(now[name])]
    if not changed:
        return None
    if changed == [IMAGES]:
        return "with other images, or others of them held out", _REPEAT_OR_DELETE
    name = WAY if WAY in changed else next(name for name in changed if name != IMAGES)  # others have other settings
    if name == MODEL:
        return _difference_of_models(before.get(name), now[name])
    return (
        f"with another {name}: {printable(str(before.get(name)))}, not {printable(str(now[name]))}",
        _REPEAT_OR_DELETE,
    )


def _decisive(value: Any) -> Any:
    return value["digest"] if isinstance(value, dict) else value


def _difference_of_models(before: Any, now: Mapping[str, str]) -> tuple[str, str]:
    if not isinstance(before, dict):
        return (
            "of an earlier version of beit, which did not keep a digest of the base model's files",
            "finish it with that version, or delete that folder to start over",
        )
    if before["name"] == now["name"]:
        return (
            f"of `{printable(now['name'])}`, whose files have changed",
            "bring them back to go on, or delete that folder to start over",
        )
    return f"with another model: {printable(before['name'])}, not {printable(now['name'])}", _REPEAT_OR_DELETE
