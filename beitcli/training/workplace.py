"""Where a training is until it is done: `MODEL.part`, from which the same command goes on."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from safetensors import SafetensorError

from beitcli.errors import MAKE_ROOM, OutputError, UsageError, way_out
from beitcli.records import printable

_RUN = "run.json"
_MARK = "training-of-beit"
"""A file in every work folder, without which nothing there is ours to remove."""

PICTURES = "pictures"
"""The setting that stands for all pictures, by a digest that says nothing to anybody."""


@contextmanager
def work_errors() -> Iterator[None]:
    """Turns what writing into the work folder raises into an OutputError."""
    try:
        yield
    except OSError as error:
        name = f" `{printable(str(error.filename))}`" if error.filename else ""
        raise OutputError(f"cannot write{name}: {error.strerror or error}", way_out(error)) from error
    except SafetensorError as error:
        raise OutputError(f"cannot write weights: {error}", MAKE_ROOM) from error


def sync_files(folder: str) -> None:
    """Has the disk hold all files of the folder: a machine's crash should not leave their names without content."""
    for entry in os.scandir(folder):
        with open(entry.path, "rb") as stream:
            os.fsync(stream.fileno())


@dataclass(frozen=True, slots=True)
class Workplace:
    """The folder that becomes `out`, and the one beside it where everything is until then."""

    out: str

    @property
    def folder(self) -> str:
        return f"{self.out}.part"

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def check(self) -> None:
        """Raises UsageError where `out` is something already, OutputError where it could not be written.

        What is in the way beside it is nobody's training, and is not touched.
        """
        if os.path.basename(self.out) in ("", ".", ".."):
            raise UsageError(f"--out `{printable(self.out)}` names no folder", "name one that is to be made")
        parent = os.path.dirname(self.out) or "."
        if not os.path.isdir(parent):
            raise OutputError(f"the folder `{printable(parent)}` does not exist", "make it first, or write elsewhere")
        if not os.access(parent, os.W_OK):
            raise OutputError(f"`{printable(parent)}` may not be written to", "write elsewhere")
        if os.path.islink(self.out) or os.path.ismount(self.out):
            kind = "a link" if os.path.islink(self.out) else "where a file system is mounted"
            raise UsageError(f"`{printable(self.out)}` is {kind}", "name a folder that is to be made")
        with work_errors():
            is_free = not os.path.lexists(self.out) or (os.path.isdir(self.out) and not os.listdir(self.out))
            is_ours = not os.path.lexists(self.folder) or self._is_ours()
        if not is_free:
            raise UsageError(f"`{printable(self.out)}` exists already", "choose another --out, or delete it")
        if not is_ours:
            raise UsageError(
                f"`{printable(self.folder)}` is no training of beit", "move it away, or choose another --out"
            )

    def _is_ours(self) -> bool:
        return os.path.isdir(self.folder) and (os.path.exists(self.path(_MARK)) or not os.listdir(self.folder))

    def start(self) -> None:
        """Makes the work folder, and marks it as one. Raises OutputError."""
        with work_errors():
            os.makedirs(self.folder, exist_ok=True)
            with open(self.path(_MARK), "w"):
                pass

    def begun(self, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """What an unfinished training of these settings has prepared, or None if there is none.

        Raises UsageError where the unfinished training is another.
        """
        try:
            with open(self.path(_RUN), encoding="utf-8") as stream:
                run = json.load(stream)
            was, prepared = dict(run["settings"]), dict(run["prepared"])
        except FileNotFoundError:
            return None
        except OSError as error:
            raise OutputError(f"cannot read `{printable(self.path(_RUN))}`: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            hint = "delete that folder to start over"
            raise OutputError(f"`{printable(self.path(_RUN))}` is damaged", hint) from error
        now = json.loads(json.dumps(settings))
        changed = [name for name in now if was.get(name) != now[name]]
        if changed == [PICTURES]:
            difference = "other pictures, or another --val-share"
        elif changed:
            name = next(name for name in changed if name != PICTURES)
            difference = f"another {name}: {printable(str(was.get(name)))}, not {printable(str(now[name]))}"
        if changed:
            raise UsageError(
                f"`{printable(self.folder)}` holds an unfinished training with {difference}",
                "give the command it was begun with to go on, or delete that folder to start over",
            )
        return prepared

    def begin(self, settings: Mapping[str, Any], prepared: Mapping[str, Any]) -> None:
        """From now on the same settings go on with what was prepared."""
        with work_errors():
            with open(self.path(_RUN + ".new"), "w", encoding="utf-8") as stream:
                json.dump({"settings": settings, "prepared": prepared}, stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(self.path(_RUN + ".new"), self.path(_RUN))

    def finish(self, model: str, card: str) -> None:
        """Gives the model its card, moves it, complete, into its place, and removes all else."""
        with work_errors():
            with open(os.path.join(model, "README.md"), "w", encoding="utf-8") as stream:
                stream.write(card)
            sync_files(model)
            os.rename(model, self.out)
        self.leave()

    def leave(self) -> None:
        """Removes the work folder and what was prepared there, the mark last: what is left of it stays ours."""
        if not os.path.exists(self.path(_MARK)):
            return
        with os.scandir(self.folder) as entries:
            inside = [entry for entry in entries if entry.name != _MARK]
        for entry in inside:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                with suppress(OSError):
                    os.unlink(entry.path)
        shutil.rmtree(self.folder, ignore_errors=True)
