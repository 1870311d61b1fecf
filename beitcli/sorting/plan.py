"""Records, corrections and the journal -> the folder of each image, and what there is to do."""

import os
import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from beitcli.decisions import GONE, Decision
from beitcli.errors import UsageError
from beitcli.records import printable
from beitcli.sorting.folders import FAILED, UNSURE, Folders, portable
from beitcli.sorting.journal import NAME, Journal, Placed, Way
from beitcli.sorting.sidecars import Sidecars, is_raw
from beitcli.sorting.transfer import is_equal

Mode = Literal["copy", "hardlink", "symlink", "move"]
Failures = Literal["folder", "leave"]


@dataclass(frozen=True, slots=True)
class Placement:
    """An image to bring into a folder, and its sidecars: from `origin`, absolute, or below the sorted one for `refile`.

    `status` is the image's, where it is a file.
    """

    decision: Decision
    way: Way
    origin: str
    image: str
    sidecars: tuple[str, ...]
    folder: str
    status: os.stat_result | None = None


@dataclass(slots=True)
class SortingPlan:
    """The placements, the number of images in place already, those left by reason, and those that cannot be placed.

    `labels` are the folders of the labels, `newer` the images that have changed since their results were written.
    """

    placements: list[Placement] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    kept: int = 0
    left: Counter[str] = field(default_factory=Counter)
    failed: list[tuple[str, str]] = field(default_factory=list)
    newer: list[str] = field(default_factory=list)

    def by_folder(self) -> Counter[str]:
        """The number of images that go into each folder."""
        return Counter(placement.folder for placement in self.placements)


class Planner:
    """Decides for one image after another; the journal's images are where its steps have brought them."""

    def __init__(self, journal: Journal, mode: Mode, failures: Failures) -> None:
        self.plan = SortingPlan()
        self._journal = journal
        self._root, self._mode, self._failures = journal.root, mode, failures
        self._folders = Folders(journal.of_labels, (NAME, f"{NAME}.lock"), self._is_usable)
        self._placed = {each.step.image: each for each in journal.placed().values() if each.is_image}
        self._sidecars = Sidecars()
        self._device = _device(self._root)
        self._real = cache(lambda folder: os.path.realpath(os.path.join(self._root, folder)))

    def decide(self, found: Sequence[Decision]) -> SortingPlan:
        """The plan for all, each of which is named once. Raises UsageError where no hard link leads to an image."""
        leaders = {os.path.splitext(each.key)[0] for each in found if not is_raw(each.key)}
        for decision in found:
            is_file = decision.source.kind == "path"
            if is_file and is_raw(decision.key) and os.path.splitext(decision.key)[0] in leaders:
                self.plan.left["raw of another image, with which it goes"] += 1
            else:
                self._decide(decision)
        self.plan.labels = self._folders.of_labels
        return self.plan

    def _decide(self, decision: Decision) -> None:
        if decision.source.kind == "stdin":
            self.plan.left["standard input"] += 1
            return
        if decision.code is not None and self._failures == "leave":
            self.plan.left["failed"] += 1
            return
        placed = self._placed.get(decision.key)
        place = placed and os.path.join(self._root, placed.path)
        if placed and place and os.path.lexists(place) and not self._is_another(decision.key, placed, place):
            self._refile(decision, placed)
        elif decision.source.kind == "url":
            self._download(decision)
        else:
            self._bring(decision)

    def _refile(self, decision: Decision, placed: Placed) -> None:
        origin, image = os.path.split(placed.path)
        self._claim_original(placed)
        folder = self._folder_of(decision)
        if origin == folder:
            self.plan.kept += 1
            return
        sidecars = self._sidecars.take(os.path.join(self._root, origin), image)
        self.plan.placements.append(Placement(decision, "refile", origin, image, tuple(sidecars), folder))

    def _claim_original(self, placed: Placed) -> None:
        """Leave no other image the sidecars that this one had at its origin."""
        if placed.way not in ("move", "download"):
            self._sidecars.take(*os.path.split(placed.origin))

    def _download(self, decision: Decision) -> None:
        if decision.code is not None:
            self.plan.left["URL that failed"] += 1
        elif self._mode != "copy":
            self.plan.left["URL, which only `copy=True` takes"] += 1
        else:
            folder, name = self._folder_of(decision), name_of_url(decision.source.location)
            self.plan.placements.append(Placement(decision, "download", decision.source.location, name, (), folder))

    def _bring(self, decision: Decision) -> None:
        folder, image = os.path.split(decision.key)
        try:
            status = os.stat(decision.key)
        except OSError as error:
            status = None
            reason = GONE if isinstance(error, FileNotFoundError) else error.strerror or str(error)
        if decision.code is not None and not (status and stat.S_ISREG(status.st_mode)):
            self.plan.left["failed, and no file"] += 1
        elif status is None:
            self.plan.failed.append((decision.name, reason))
        elif not stat.S_ISREG(status.st_mode):
            self.plan.failed.append((decision.name, "no regular file"))
        elif self._mode == "move" and os.path.islink(decision.key):
            self.plan.left["link, which `move=True` leaves"] += 1
        else:
            self._bring_file(decision, folder, image, status)

    def _bring_file(self, decision: Decision, origin: str, image: str, status: os.stat_result) -> None:
        sidecars, folder = self._sidecars.take(origin, image), self._folder_of(decision)
        if origin == self._real(folder):
            self.plan.kept += 1
            return
        if self._mode == "hardlink" and status.st_dev != self._device:
            raise UsageError(
                f"`{printable(decision.name)}` is on another file system than `to={printable(self._root)}`, "
                "and no hard link leads there",
                "`symlink=True`, or `copy=True`",
            )
        if status.st_mtime_ns > decision.as_of:
            self.plan.newer.append(decision.name)
        self.plan.placements.append(Placement(decision, self._mode, origin, image, tuple(sidecars), folder, status))

    def _folder_of(self, decision: Decision) -> str:
        if decision.code is not None:
            return f"{FAILED}/{portable(decision.code)}"
        return UNSURE if decision.label is None else self._folders.of(decision.label)

    def _is_another(self, key: str, placed: Placed, place: str) -> bool:
        """True if the file that is now at the origin is not the one that was brought."""
        if placed.way in ("symlink", "download") or not os.path.lexists(key):
            return False
        if placed.way == "move" or not os.path.isfile(key):
            return True
        if placed.way == "hardlink":
            return not os.path.samefile(key, place)
        now = os.stat(key)
        return (now.st_size, now.st_mtime_ns) != (placed.step.size, placed.step.mtime_ns) and not is_equal(key, place)

    def _is_usable(self, name: str) -> bool:
        path = os.path.join(self._root, name)
        return os.path.isdir(path) or not os.path.lexists(path)


def name_of_url(url: str) -> str:
    """A name of a file for the URL's image: the last part of its path."""
    from urllib.parse import unquote, urlsplit

    return portable(unquote(urlsplit(url).path.rpartition("/")[2]) or "image")


def _device(path: str) -> int:
    """The file system of a folder, or of the one that it will be in."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return os.stat(path).st_dev
