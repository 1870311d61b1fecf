"""The work directory of a training, `MODEL.part`, from which the same command resumes."""

import ctypes
import errno
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from safetensors import SafetensorError

from beitcli.errors import MAKE_ROOM, OutputError, UsageError, first_line, hint_for
from beitcli.file_system import replace, sync
from beitcli.records import printable
from beitcli.training.settings import difference

_RUN = "run.json"
_MARKER = "training-of-beit"
"""Marker file of a work directory: a folder without it is never removed."""

MODEL_FILES = frozenset(
    {
        *("README.md", "config.json", "model.safetensors", "preprocessor_config.json"),
        *("training-digests", "validation.csv", "training.jsonl", "training.png", "tokenizer.safetensors"),
    }
)
"""Names of the files of a trained model: a folder with any other is never replaced."""

_TORCH_WRITER = ("inline_container", "iostream error")
"""Words in the messages of torch's writer of archives."""

_EXCHANGE, _HERE = 2, -100  # RENAME_EXCHANGE of linux/fs.h, AT_FDCWD of linux/fcntl.h


@contextmanager
def work_errors() -> Iterator[None]:
    """Turn errors of writing into the work directory into an OutputError."""
    try:
        yield
    except OSError as error:
        name = f" `{printable(str(error.filename))}`" if error.filename else ""
        raise OutputError(f"cannot write{name}: {error.strerror or error}", hint_for(error)) from error
    except SafetensorError as error:
        raise writing_error("weights", error) from error


def writing_error(what: str, error: Exception) -> OutputError:
    """Error for one that safetensors or torch raised while writing, in the system's words where its message has them.

    torch's writer of archives has none for a full disk.
    """
    system = _system_error(str(error))
    if system:
        return OutputError(f"cannot write {what}: {system.strerror}", hint_for(system))
    if any(words in str(error) for words in _TORCH_WRITER):
        return OutputError(f"cannot write {what}: no room, or the disk fails", MAKE_ROOM)
    return OutputError(f"cannot write {what}: {first_line(error)}")


def _system_error(message: str) -> OSError | None:
    """The system's error that a message of safetensors (by number) or torch (by text) names."""
    number = re.search(r"\(os error (\d+)\)", message)
    if number:
        return OSError(int(number[1]), os.strerror(int(number[1])))
    named = (code for code in errno.errorcode if f"strerror: {os.strerror(code)}" in message)
    return next((OSError(code, os.strerror(code)) for code in named), None)


def sync_files(folder: str) -> None:
    """Flush all files of the folder to disk, so that a crash of the machine leaves none empty."""
    for entry in os.scandir(folder):
        with open(entry.path, "rb") as stream:
            sync(stream.fileno())


@dataclass(frozen=True, slots=True)
class WorkDir:
    """The folder `out`, and the work directory beside it that holds everything until it is complete.

    With `replace`, `out` may be an earlier model, which is kept until then.
    """

    out: str
    replace: bool = False

    @property
    def folder(self) -> str:
        return f"{self.out}.part"

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def check(self) -> None:
        """Raise UsageError where `out` or a foreign work directory exists, OutputError where `out` cannot be written.

        A foreign folder is not touched.
        """
        if os.path.basename(self.out) in ("", ".", ".."):
            raise UsageError(f"`out=` `{printable(self.out)}` names no folder", "name a new one")
        parent = os.path.dirname(self.out) or "."
        if not os.path.isdir(parent):
            raise OutputError(f"the folder `{printable(parent)}` does not exist", "create it first, or write elsewhere")
        if not os.access(parent, os.W_OK):
            raise OutputError(f"`{printable(parent)}` is not writable", "write elsewhere")
        if os.path.islink(self.out) or os.path.ismount(self.out):
            kind = "a link" if os.path.islink(self.out) else "a mount point"
            raise UsageError(f"`{printable(self.out)}` is {kind}", "name a new folder")
        with work_errors():
            is_free = not os.path.lexists(self.out) or (os.path.isdir(self.out) and not os.listdir(self.out))
            is_ours = not os.path.lexists(self.folder) or self._is_ours()
        if not is_free:
            self._check_replaceable()
        if not is_ours:
            raise UsageError(
                f"`{printable(self.folder)}` is no training of beit", "move it away, or choose another `out=`"
            )

    def _check_replaceable(self) -> None:
        """Raise UsageError unless `out` is a trained model with nothing else in its folder, and is to be replaced."""
        name = printable(self.out)
        if not self.replace:
            hint = "choose another `out=`, or replace a model by `replace=True`"
            raise UsageError(f"`{name}` exists already", hint)
        entries = set(os.listdir(self.out)) if os.path.isdir(self.out) else set()
        others = sorted(entries - MODEL_FILES)
        if "config.json" not in entries or others:
            problem = f"holds `{printable(others[0])}`" if others else "is no model"
            raise UsageError(f"`{name}` {problem}, and would be replaced", "move it away, or choose another `out=`")

    def _is_ours(self) -> bool:
        return os.path.isdir(self.folder) and (os.path.exists(self.path(_MARKER)) or not os.listdir(self.folder))

    def start(self) -> None:
        """Create the work directory and its marker. Raises OutputError."""
        with work_errors():
            os.makedirs(self.folder, exist_ok=True)
            with open(self.path(_MARKER), "w"):
                pass

    def begun(self, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """The prepared data of an unfinished training with these settings, or None if there is none.

        Raises UsageError where the unfinished training has other settings.
        """
        try:
            with open(self.path(_RUN), encoding="utf-8") as stream:
                run = json.load(stream)
            before, prepared = dict(run["settings"]), dict(run["prepared"])
        except FileNotFoundError:
            return None
        except OSError as error:
            raise OutputError(f"cannot read `{printable(self.path(_RUN))}`: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            hint = "delete that folder to start over"
            raise OutputError(f"`{printable(self.path(_RUN))}` is damaged", hint) from error
        now = json.loads(json.dumps(settings))
        changed = difference(before, now)
        if changed:
            text, hint = changed
            raise UsageError(f"`{printable(self.folder)}` holds an unfinished training {text}", hint)
        return prepared

    def begin(self, settings: Mapping[str, Any], prepared: Mapping[str, Any]) -> None:
        """Save settings and prepared data, so that the same settings resume from here."""
        with work_errors():
            with open(self.path(_RUN + ".new"), "w", encoding="utf-8") as stream:
                json.dump({"settings": settings, "prepared": prepared}, stream)
                stream.flush()
                sync(stream.fileno())
            replace(self.path(_RUN + ".new"), self.path(_RUN))

    def finish(self, model: str, card: str) -> None:
        """Write the card, move the complete model to `out`, and remove the work directory."""
        with work_errors():
            with open(os.path.join(model, "README.md"), "w", encoding="utf-8") as stream:
                stream.write(card)
            sync_files(model)
            self._put_in_place(model)
        self.remove()

    def _put_in_place(self, model: str) -> None:
        """Move the model to `out`; an earlier one there goes to the work directory, if possible in the same step."""
        if not self.replace or not os.path.isdir(self.out) or not os.listdir(self.out):
            if os.path.isdir(self.out):  # an empty one, which not every file system replaces
                os.rmdir(self.out)
            os.rename(model, self.out)
        elif not _exchange(model, self.out):
            before = self.path("before")
            os.rename(self.out, before)
            try:
                os.rename(model, self.out)
            except OSError:
                os.rename(before, self.out)
                raise

    def remove(self) -> None:
        """Remove the work directory, the marker last, so that a rest of it is still recognised."""
        if not os.path.exists(self.path(_MARKER)):
            return
        with os.scandir(self.folder) as entries:
            contents = [entry for entry in entries if entry.name != _MARKER]
        for entry in contents:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                with suppress(OSError):
                    os.unlink(entry.path)
        shutil.rmtree(self.folder, ignore_errors=True)


def _exchange(one: str, other: str) -> bool:
    """Exchange two folders in one step; False where the system or the file system cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    return rename is not None and rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0
