"""The placements of a plan, carried out: announced in the journal some at a time, then made one after another."""

import errno
import hashlib
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from beitcli.decisions import GONE
from beitcli.errors import MAKE_ROOM, OutputError
from beitcli.file_system import file_digest
from beitcli.records import Failure, Fetched, Source, printable
from beitcli.sorting import transfer
from beitcli.sorting.folders import shortened
from beitcli.sorting.journal import Journal, Step
from beitcli.sorting.plan import Placement, SortingPlan
from beitcli.sorting.sidecars import is_sidecar

log = logging.getLogger(__name__)

_AT_ONCE = 100
"""Steps that are announced with one flush to the disk."""

_LONGEST_NAME = 255  # bytes
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(slots=True)
class Filing:
    """Carries out placements; counts images done, sidecars with them and identical ones left, and collects failures."""

    journal: Journal
    by_content: bool
    on_done: Callable[[int], object]
    done: int = 0
    sidecars: int = 0
    identical: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    _batch: list[tuple[Placement, Step]] = field(default_factory=list)
    _reserved: dict[str, str] = field(default_factory=dict)
    _numbers: dict[str, int] = field(default_factory=dict)
    _stems: dict[str, dict[str, bool]] = field(default_factory=dict)  # by folder: has it a sidecar?
    _contents_to_come: set[tuple[str, int]] = field(default_factory=set)
    _contents: dict[tuple[str, int], list[str]] = field(default_factory=dict)

    def settle(self) -> None:
        """Finish what a killed run has begun, and drop what it has only announced. Raises OutputError."""
        self.journal.clear_parts()
        for number in sorted(self.journal.unfinished):
            step = self.journal.steps[number]
            files = list(self.journal.files(step))
            try:
                if not self._has_arrived(step, *files[0]):
                    self.journal.drop(step)
                    continue
            except OSError as error:
                self._fail(step.image, error)
                continue
            self._make_missing(step, files[1:])
            self.journal.finish(step)
        if self.journal.has_undone:
            self._complete_groups()
            self.journal.end_undoing()

    def _complete_groups(self) -> None:
        """Bring again what an unfinished undoing has taken back of an image that is still there."""
        placed = [(each, os.path.join(self.journal.root, each.path)) for each in self.journal.placed().values()]
        there = {each.step.image for each, path in placed if each.is_image and os.path.lexists(path)}
        for each, path in placed:
            if each.step.image in there:
                self._make_missing(each.step, [(each.origin, path)])

    def _make_missing(self, step: Step, files: list[tuple[str, str]]) -> None:
        for source, target in files:
            try:
                has_arrived = self._has_arrived(step, source, target)
            except OSError as error:
                self._fail(source, error)
                continue
            if not has_arrived:
                self._make(step, [(source, target)], has_image=True)

    def carry_out(self, plan: SortingPlan) -> None:
        """Do all placements on files. Raises OutputError where the disk is full, or the journal cannot be written."""
        if self.by_content:
            for each in self.journal.placed().values():
                if each.is_image:
                    self._note_content(each.path)
        for placement in plan.placements:
            if placement.way != "download" and not self._is_there(placement):
                self._announce(placement, self._names_for(placement))
        self._flush()

    def download(self, plan: SortingPlan, bodies: Iterable[Fetched | Failure | Source]) -> None:
        """Do those of URLs, whose bodies come in the order of the placements. Raises OutputError as `carry_out`."""
        placements = (placement for placement in plan.placements if placement.way == "download")
        for placement, body in zip(placements, bodies, strict=True):
            if not isinstance(body, Fetched):
                reason = f"{body.code}: {body.message}" if isinstance(body, Failure) else "not fetched"
                self.failed.append((placement.decision.name, reason))
                self.on_done(1)
                continue
            self._announce(placement, self._names_for(placement), body.data)
            self._flush(body.data)

    def _is_there(self, placement: Placement) -> bool:
        """True if a file of the same bytes is in the placement's folder already, and is to do for both."""
        if not self.by_content or placement.status is None:
            return False
        key = (placement.folder, placement.status.st_size)
        if key in self._contents_to_come:
            self._flush()
        path = os.path.realpath(os.path.join(placement.origin, placement.image))
        with suppress(OSError):
            if any(transfer.is_equal(path, each) for each in self._contents.get(key, ())):
                self.identical += 1
                self.on_done(1)
                return True
        self._contents_to_come.add(key)
        return False

    def _note_content(self, path: str) -> None:
        file = os.path.join(self.journal.root, path)
        if os.path.isfile(file):
            key = (os.path.dirname(path), os.stat(file).st_size)
            self._contents.setdefault(key, []).append(os.path.realpath(file))

    def _names_for(self, placement: Placement) -> tuple[tuple[str, str], ...]:
        """A free name for the image and each sidecar, all with the same number."""
        olds = (placement.image, *placement.sidecars)
        stem = os.path.splitext(placement.image)[0]
        begun = f"{placement.folder}/{placement.image}"
        longest = max(len(os.fsencode(old)) for old in olds)
        number = self._numbers.get(begun, 1)
        while not self._reserve(placement.folder, news := [_numbered(old, stem, number, longest) for old in olds]):
            number += 1
        self._numbers[begun] = number
        return tuple(zip(olds, news, strict=True))

    def _reserve(self, folder: str, names: list[str]) -> bool:
        """True if all names are free in the folder, and from now on reserved."""
        if self._shares_sidecars(folder, names):
            return False
        paths = [f"{folder}/{name}" for name in names]
        if any(self._reserved.get(path.casefold(), path) != path for path in paths):
            self._flush()  # if their case makes no difference there, the file system says so then
        if any(path.casefold() in self._reserved or self._exists(path) for path in paths):
            return False
        self._reserved.update((path.casefold(), path) for path in paths)
        for name in names:
            self._note_stem(self._stems[folder], name)
        return True

    def _shares_sidecars(self, folder: str, names: list[str]) -> bool:
        """True if a sidecar would be that of two images, as one of them came from another folder."""
        if folder not in self._stems:
            self._stems[folder] = {}
            with suppress(OSError):
                for name in os.listdir(os.path.join(self.journal.root, folder)):
                    self._note_stem(self._stems[folder], name)
        stems, stem = self._stems[folder], os.path.splitext(names[0])[0]
        has_own = any(os.path.splitext(name)[0] == stem for name in names[1:])
        return stems.get(names[0], False) or stems.get(stem, False) or (has_own and stem in stems)

    @staticmethod
    def _note_stem(stems: dict[str, bool], name: str) -> None:
        stem = os.path.splitext(name)[0]
        stems[stem] = stems.get(stem, False) or is_sidecar(name)

    def _exists(self, path: str) -> bool:
        return os.path.lexists(os.path.join(self.journal.root, path))

    def _announce(self, placement: Placement, names: tuple[tuple[str, str], ...], data: bytes | None = None) -> None:
        size, time = (placement.status.st_size, placement.status.st_mtime_ns) if placement.status else (None, None)
        digest = None if data is None else hashlib.sha256(data).hexdigest()
        step = Step(
            self.journal.number(),
            placement.way,
            placement.decision.key,
            placement.origin,
            placement.folder,
            names,
            size,
            time,
            digest,
        )
        self._batch.append((placement, step))
        if len(self._batch) == _AT_ONCE:
            self._flush()

    def _flush(self, data: bytes | None = None) -> None:
        """Announce the collected steps, and make them."""
        batch, self._batch = self._batch, []
        self._reserved.clear()
        self._contents_to_come.clear()
        if not batch:
            return
        self._make_folders([placement for placement, _ in batch], [step for _, step in batch])
        for _, step in batch:
            files = list(self.journal.files(step))
            if self._make(step, files, data=data):
                self.journal.finish(step)
                self.done += 1
                if self.by_content:
                    self._note_content(f"{step.folder}/{step.names[0][1]}")
            else:
                self.journal.drop(step)
            self.on_done(1)

    def _make_folders(self, placements: list[Placement], steps: list[Step]) -> None:
        """Announce the folders and the steps, and make the folders."""
        labels = {placement.folder: placement.decision.label for placement in placements}
        wanted = dict.fromkeys(part for folder in labels for part in _with_parent(folder))
        new = [(name, labels.get(name), not self._exists(name)) for name in wanted if name not in self.journal.folders]
        self.journal.announce(new, steps)
        for name in wanted:
            try:
                os.makedirs(os.path.join(self.journal.root, name), exist_ok=True)
            except OSError as error:
                if error.errno in _FULL:
                    raise self._full(error) from error
                log.debug("no folder %s: %s", name, error)  # its files say so, too

    def _make(
        self, step: Step, files: list[tuple[str, str]], has_image: bool = False, data: bytes | None = None
    ) -> bool:
        """Bring the files; False if the image cannot be brought. A sidecar that cannot is noted as a failure."""
        for place, (source, target) in enumerate(files):
            is_image = not place and not has_image
            try:
                self._bring(step, source, target, data)
            except FileNotFoundError as error:
                if is_image or os.path.lexists(source):
                    self._fail(source if step.way != "download" else step.image, error)
            except OSError as error:
                self._fail(source if step.way != "download" else step.image, error)
            else:
                self.sidecars += not is_image
                continue
            if is_image:
                return False
        return True

    def _bring(self, step: Step, source: str, target: str, data: bytes | None) -> None:
        part = self.journal.part(os.path.dirname(target))
        if step.way in ("move", "refile"):
            transfer.move(source, target, part)
        elif step.way == "copy":
            transfer.copy(source, target, part)
        elif step.way == "hardlink":
            os.link(os.path.realpath(source), target)
        elif step.way == "symlink":
            os.symlink(source, target)
        elif data is not None:
            transfer.write(data, target, part)

    def _has_arrived(self, step: Step, source: str, target: str) -> bool:
        """True if the step has brought this file; a move that was killed halfway is finished. Raises OSError."""
        if step.way in ("move", "refile"):
            return transfer.finish_move(source, target)
        if not os.path.lexists(target):
            return False
        if step.way == "symlink":
            return transfer.leads_to(target) == source
        if step.way == "download":
            return os.path.isfile(target) and file_digest(target) == step.digest
        return transfer.is_equal(os.path.realpath(source), target)

    def _fail(self, path: str, error: OSError) -> None:
        if error.errno in _FULL:
            raise self._full(error) from error
        if isinstance(error, FileNotFoundError) and not os.path.lexists(path):
            reason = GONE
        elif isinstance(error, FileExistsError):
            reason = "its new name has just been taken"
        else:
            reason = error.strerror or str(error)
        self.failed.append((os.fsencode(path).decode("utf-8", "backslashreplace"), reason))

    def _full(self, error: OSError) -> OutputError:
        return OutputError(
            f"`{printable(self.journal.root)}`: {error.strerror}, after {self.done} images",
            f"{MAKE_ROOM}, or take them back by `undo={printable(self.journal.root)}`",
        )


def _with_parent(folder: str) -> list[str]:
    parent = os.path.dirname(folder)
    return [parent, folder] if parent else [folder]


def _numbered(name: str, stem: str, number: int, longest: int) -> str:
    """The name with a number behind its stem, which is cut where a name of so many bytes would not fit."""
    if number == 1:
        return name
    end = f"_{number}"
    room = _LONGEST_NAME - longest + len(os.fsencode(stem)) - len(end)
    return f"{shortened(stem, room)}{end}{name[len(stem) :]}"
