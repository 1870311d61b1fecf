"""Plan and result of `beit sort` as lines."""

from collections import Counter

from beitcli.cli import notices, progress
from beitcli.cli.preview import print_preview
from beitcli.cli.unprocessed import reasons
from beitcli.jobs import sorting as job
from beitcli.jobs.sorting import Sorted, SortRequest
from beitcli.records import printable
from beitcli.sorting.plan import Mode, SortingPlan

_FOLDERS_SHOWN = 20

_PAST = {"copy": "copied", "hardlink": "linked", "symlink": "linked", "move": "moved"}


def preview(request: SortRequest, quiet: bool) -> None:
    """Print how many images would go where."""
    with progress.observer(quiet, records_on_stdout=True) as observer:
        plan = job.preview_sorting(request, observer)
    print_preview(
        {
            **_lines(plan),
            "already there": plan.kept,
            **_reasons(plan.left),
            "that cannot be sorted": len(plan.failed),
        }
    )


def _lines(plan: SortingPlan) -> dict[str, int]:
    return {f"{printable(folder)}/": count for folder, count in sorted(plan.by_folder().items())}


def _reasons(left: Counter[str]) -> dict[str, int]:
    return {f"left: {reason}": count for reason, count in left.items()}


def announce(plan: SortingPlan, quiet: bool) -> None:
    """Print how many images go where; of many folders, the largest."""
    if quiet or not plan.placements:
        return
    counts = plan.by_folder().most_common()
    for folder, count in counts[:_FOLDERS_SHOWN]:
        notices.print_line(f"{count} to {printable(folder)}/")
    if len(counts) > _FOLDERS_SHOWN:
        others = counts[_FOLDERS_SHOWN:]
        notices.print_line(f"{sum(count for _, count in others)} to {len(others)} others, which `dry_run=True` lists")


def summarize(done: Sorted, mode: Mode) -> None:
    """Print what was done."""
    total = done.done + done.kept + done.left.total() + len(done.failed)
    counts = (
        f"{done.done} {_PAST[mode]}, {done.kept} already there, {done.left.total()} left, {len(done.failed)} failed"
    )
    notices.print_line(f"{total} images: {counts}")
    if done.sidecars:
        notices.print_line(f"with them: {done.sidecars} sidecars")
    if done.left:
        notices.print_line(reasons(done.left))
