"""Where a training is until it is done: `MODEL.part`, from which the same command goes on."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from beitcli.errors import OutputError, UsageError
from beitcli.records import printable

_RUN = "run.json"


@contextmanager
def work_errors() -> Iterator[None]:
    """Turns what writing into the work folder raises into an OutputError."""
    try:
        yield
    except OSError as error:
        name = f" `{printable(str(error.filename))}`" if error.filename else ""
        raise OutputError(f"cannot write{name}: {error.strerror or error}", "make room, then run it again") from error


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
        """Raises UsageError where `out` is something already, OutputError where it could not be written."""
        parent = os.path.dirname(self.out) or "."
        if not os.path.isdir(parent):
            raise OutputError(f"the folder `{printable(parent)}` does not exist", "make it first, or write elsewhere")
        if not os.access(parent, os.W_OK):
            raise OutputError(f"`{printable(parent)}` may not be written to", "write elsewhere")
        if os.path.lexists(self.out) and not (os.path.isdir(self.out) and not os.listdir(self.out)):
            raise UsageError(f"`{printable(self.out)}` exists already", "choose another --out, or delete it")

    def begun(self, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """What an unfinished training of these settings has prepared, or None if there is none.

        Raises UsageError where the unfinished training is another.
        """
        try:
            with open(self.path(_RUN), encoding="utf-8") as stream:
                run = json.load(stream)
        except FileNotFoundError:
            return None
        was, now = run["settings"], json.loads(json.dumps(settings))
        changed = [name for name in now if was.get(name) != now[name]]
        if changed:
            raise UsageError(
                f"`{printable(self.folder)}` holds an unfinished training with another {changed[0]}: "
                f"{printable(str(was.get(changed[0])))}, not {printable(str(now[changed[0]]))}",
                "give the command it was begun with to go on, or delete that folder to start over",
            )
        prepared: dict[str, Any] = run["prepared"]
        return prepared

    def begin(self, settings: Mapping[str, Any], prepared: Mapping[str, Any]) -> None:
        """From now on the same settings go on with what was prepared."""
        with work_errors():
            with open(self.path(_RUN + ".new"), "w", encoding="utf-8") as stream:
                json.dump({"settings": settings, "prepared": prepared}, stream)
            os.replace(self.path(_RUN + ".new"), self.path(_RUN))

    def finish(self, model: str) -> None:
        """Moves the complete model into its place, and removes all else."""
        with work_errors():
            os.rename(model, self.out)
        shutil.rmtree(self.folder, ignore_errors=True)

    def leave(self) -> None:
        """Removes what was prepared for a training that never began."""
        shutil.rmtree(self.folder, ignore_errors=True)
