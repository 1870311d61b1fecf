"""Sorting of images into a folder for each label, and its undoing."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field

from beitcli.decisions import Keys
from beitcli.errors import OutputError, UsageError
from beitcli.jobs.observer import Observer
from beitcli.jobs.requests import Limits
from beitcli.jobs.result_files import ResultFiles
from beitcli.outputs.lock import exclusive
from beitcli.records import printable
from beitcli.sorting.filing import Filing
from beitcli.sorting.journal import Journal
from beitcli.sorting.plan import Failures, Mode, Planner, SortingPlan
from beitcli.sorting.undo import Undoing

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SortRequest:
    """Results, and how their images come into the folder `to`; see the options of `beit sort`."""

    results: ResultFiles
    to: str
    mode: Mode = "copy"
    failures: Failures = "folder"
    dedupe: bool = False
    limits: Limits = field(default_factory=Limits)

    def check(self) -> None:
        """Raise UsageError for files that are not there, and a folder that can be none."""
        self.limits.check()
        self.results.check()
        if not self.to or (os.path.lexists(self.to) and not os.path.isdir(self.to)):
            raise UsageError(f"`to={printable(self.to)}` is no folder")


@dataclass(frozen=True, slots=True)
class Sorted:
    """Counts of images: brought now, in place before, left by reason; sidecars with them; and failures with reasons."""

    done: int = 0
    kept: int = 0
    sidecars: int = 0
    left: Counter[str] = field(default_factory=Counter)
    failed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Undone:
    """Counts of files moved back and deleted; and those left, with reasons."""

    moved: int = 0
    deleted: int = 0
    left: tuple[tuple[str, str], ...] = ()


def preview_sorting(request: SortRequest, observer: Observer) -> SortingPlan:
    """The plan of the request, nothing of which is carried out. Raises as `sort`."""
    request.check()
    return _plan(request, Journal.read(os.path.realpath(request.to)), observer)


def sort(request: SortRequest, observer: Observer, announce: Callable[[SortingPlan], object]) -> Sorted:
    """Bring the images of the results into folders; the same request finishes one that was killed.

    `announce` gets the plan before any image moves. Raises UsageError for what cannot be sorted so, BusyError where
    another run sorts into the folder, OutputError where it cannot be written or is full.
    """
    request.check()
    with _opened(request.to) as journal:
        filing = Filing(journal, request.dedupe, observer.progress)
        filing.settle()
        plan = _plan(request, journal, observer)
        announce(plan)
        observer.stage("sorting", len(plan.placements))
        filing.carry_out(plan)
        urls = [placement.decision.source for placement in plan.placements if placement.way == "download"]
        if urls:
            from beitcli.inputs.fetch import fetch

            with closing(fetch(urls, request.limits.fetching(), on_wait=lambda _: None)) as bodies:
                filing.download(plan, bodies)
    left = plan.left + Counter({"the same bytes as another": filing.identical})
    return Sorted(filing.done, plan.kept, filing.sidecars, left, (*plan.failed, *filing.failed))


def preview_undoing(folder: str) -> Undone:
    """The numbers of files that an undoing would move back or delete. Raises UsageError where there is no journal."""
    journal = _journal_of(folder)
    ways = [each.way for each in journal.placed().values() if os.path.lexists(os.path.join(journal.root, each.path))]
    moved = ways.count("move")
    return Undone(moved, len(ways) - moved)


def undo(folder: str, observer: Observer) -> Undone:
    """Take back what was sorted into the folder, all runs of it; the same call goes on with one that was killed.

    Raises UsageError where there is no journal, BusyError where a run sorts into it, OutputError for a full disk.
    """
    _journal_of(folder)
    with _opened(folder) as journal:
        undoing = Undoing(journal, observer.progress)
        observer.stage("taking back", len(journal.placed()), "files")
        undoing.take_back()
        undoing.clear_up()
    if journal.made_root and not undoing.left:
        with suppress(OSError):
            os.rmdir(journal.root)
    return Undone(undoing.moved, undoing.deleted, tuple(undoing.left))


def _journal_of(folder: str) -> Journal:
    journal = Journal.read(os.path.realpath(folder))
    if not journal.exists:
        raise UsageError(f"`{printable(folder)}` has no journal of `beit sort`: there is nothing to undo")
    return journal


@contextmanager
def _opened(folder: str) -> Iterator[Journal]:
    """The folder's journal, open and locked; the folder is made where there is none."""
    root = os.path.realpath(folder)
    is_new = not os.path.isdir(root)
    try:
        os.makedirs(root, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder `{printable(folder)}`: {error.strerror}") from error
    try:
        with exclusive(Journal(root).path, wait=False):
            journal = Journal.read(root)
            with closing(journal):
                journal.begin(is_new)
                try:
                    yield journal
                finally:
                    if not journal.folders and journal.exists:
                        journal.delete()
    finally:
        if is_new:
            with suppress(OSError):  # something is in it
                os.rmdir(root)


def _plan(request: SortRequest, journal: Journal, observer: Observer) -> SortingPlan:
    placed = {os.path.join(journal.root, path) for path in journal.placed()}
    found, repeated = request.results.decisions(Keys(journal.images(), placed), observer)
    plan = Planner(journal, request.mode, request.failures).decide(found)
    plan.left += Counter({"listed twice": repeated})
    _check_any_is_there(plan)
    if plan.newer:
        name = printable(plan.newer[0])
        log.warning("%d images have changed since the results were written, such as %s", len(plan.newer), name)
    return plan


def _check_any_is_there(plan: SortingPlan) -> None:
    """Raise UsageError where no image can be sorted, and some should be."""
    if plan.failed and not plan.placements and not plan.kept:
        name, reason = plan.failed[0]
        raise UsageError(
            f"no image can be sorted, such as `{printable(name)}`: {reason}",
            "are the paths of the results relative to another folder? start `beit sort` there",
        )
