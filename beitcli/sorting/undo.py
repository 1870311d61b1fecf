"""Files of a sorted folder -> where they came from; what is not known to be there a second time is never deleted."""

import errno
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from beitcli.errors import MAKE_ROOM, OutputError
from beitcli.file_system import file_digest
from beitcli.records import printable
from beitcli.sorting import transfer
from beitcli.sorting.journal import Journal, Placed
from beitcli.sorting.sidecars import Sidecars

_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(slots=True)
class Undoing:
    """Takes files back; counts those moved back and those deleted here, and collects those left, with the reasons.

    It goes by the files alone, so that it can be killed and run again.
    """

    journal: Journal
    on_done: Callable[[int], object]
    moved: int = 0
    deleted: int = 0
    left: list[tuple[str, str]] = field(default_factory=list)
    _sidecars: Sidecars = field(default_factory=Sidecars)

    def take_back(self) -> None:
        """Take all files back. Raises OutputError where a disk is full."""
        self._forget_what_was_only_announced()
        placed = self.journal.placed()
        moved = {each.step.image for each in placed.values() if each.is_image and each.way == "move"}
        ours = {
            path: each for path, each in placed.items() if each.step.way != "refile" or each.step.image not in moved
        }
        self.journal.clear_parts()
        self.journal.begin_undoing()
        for each in reversed(ours.values()):
            if each.is_image and each.way == "move":
                self._take_sidecars_back(each, ours)
            self._try(each.path, each, os.path.join(self.journal.root, each.path))
            self.on_done(1)

    def _forget_what_was_only_announced(self) -> None:
        """Forget, for this undoing, the changes of folders that a killed run has not made; a full disk has no room."""
        for number in self.journal.unfinished:
            step = self.journal.steps[number]
            if step.way == "refile":
                files = zip(step.names, self.journal.files(step), strict=True)
                names = tuple(name for name, paths in files if transfer.finish_move(*paths))
                self.journal.steps[number] = replace(step, names=names)

    def clear_up(self) -> None:
        """Delete the folders that were made and are empty, and the journal if no file is left. Raises OutputError."""
        for folder in sorted(self.journal.made, key=len, reverse=True):
            with suppress(OSError):
                os.rmdir(os.path.join(self.journal.root, folder))
        if not self.left:
            self.journal.delete()

    def _try(self, name: str, placed: Placed, current: str) -> None:
        try:
            reason = self._undo(placed, current)
        except OSError as error:
            if error.errno in _FULL:
                raise OutputError(f"`{printable(placed.origin)}`: {error.strerror}", MAKE_ROOM) from error
            reason = error.strerror or str(error)
        if reason:
            self.left.append((os.fsencode(name).decode("utf-8", "backslashreplace"), reason))

    def _undo(self, placed: Placed, current: str) -> str | None:
        """Undo one file, or give the reason why not. Raises OSError."""
        if placed.way == "move":
            return self._move_back(current, placed.origin)
        if not os.path.lexists(current):
            return None
        if placed.way == "download":
            is_ours = os.path.isfile(current) and file_digest(current) == placed.step.digest
            reason = "it has changed"
        elif placed.way == "symlink":
            is_ours, reason = transfer.leads_to(current) == placed.origin, "it is another link, or none"
        else:
            original = os.path.realpath(placed.origin)
            is_ours = (
                transfer.is_equal(original, current)
                and not transfer.is_same_place(original, current)
                and (placed.way == "copy" or os.path.samefile(original, current))
            )
            reason = "it differs from its original" if os.path.isfile(original) else "its original is gone"
        if not is_ours:
            return reason
        os.unlink(current)
        self.deleted += 1
        return None

    def _move_back(self, current: str, origin: str) -> str | None:
        if not os.path.lexists(current):
            return None if os.path.lexists(origin) else "it is in neither place"
        os.makedirs(os.path.dirname(origin), exist_ok=True)
        if not os.path.lexists(origin):
            transfer.move(current, origin, self.journal.part(os.path.dirname(origin)))
        elif not transfer.finish_move(current, origin):
            return f"another file is at `{printable(origin)}`"
        self.moved += 1
        return None

    def _take_sidecars_back(self, image: Placed, ours: Mapping[str, Placed]) -> None:
        """Take those back that have come since, beside an image that goes back: they would lose it."""
        folder, name = os.path.split(image.path)
        stem, original = (os.path.splitext(path)[0] for path in (name, image.origin))
        for sidecar in self._sidecars.take(os.path.join(self.journal.root, folder), name):
            path = f"{folder}/{sidecar}"
            if path not in ours:
                back = Placed(path, original + sidecar[len(stem) :], image.step, is_image=False)
                self._try(path, back, os.path.join(self.journal.root, path))
