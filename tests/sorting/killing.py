"""A program that kills sortings and undoings before each of their calls of the file system, one after another.

`python -m tests.sorting.killing MODE FOLDER OTHER EVERY` sorts images of FOLDER into OTHER, which may be on another
file system, and kills before each call of which the number is one of EVERY. It fails where a file is lost, doubled or
changed after the run has been continued or undone.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

from beitcli.jobs.sorting import Sorted, Undone
from beitcli.sorting.plan import Mode
from tests.sorting.trees import Tree, fill, ok, results, sorted_into, tree, undone

_CALLS = frozenset(
    f"os.{name}" for name in ("link", "symlink", "remove", "rename", "mkdir", "rmdir", "truncate", "utime", "chmod")
) | {"open", "shutil.copyfile", "shutil.copystat"}


def _is_killed(work: Callable[[], object], call: int) -> bool:
    """True if the work, in a process of its own, has not come to its end before the call of that number."""
    process = os.fork()
    if not process:
        left = call

        def count(event: str, arguments: object) -> None:
            nonlocal left
            if event in _CALLS:
                left -= 1
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        work()
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert status in (0, -signal.SIGKILL), status
    return status != 0


def _in_folders(trees: tuple[Tree, Tree]) -> list[tuple[str, str | bytes]]:
    """The files without their names: those that have been taken back already are named anew."""
    return sorted((os.path.dirname(path), data) for each in trees for path, data in each.items())


def main(mode: Mode, folder: Path, other: Path, every: int) -> None:
    photos, pristine, to = folder / "photos", folder / "pristine", other / "sorted"
    fill(pristine, "a/cat.jpg", "a/cat.xmp", "b/cat.jpg", "b/cat.jpg.json", "b/dog.png", "b/dog.NEF")
    before = tree(pristine)

    def sorting(name: str, *labels: str) -> Callable[[], Sorted]:
        lines = map(ok, (photos / image for image in ("a/cat.jpg", "b/cat.jpg", "b/dog.png")), labels)
        predictions = results(folder / f"{name}.jsonl", *lines)
        return lambda: sorted_into(to, predictions, mode=mode)

    def undo() -> Undone | None:
        return undone(to) if (to / "beit-sort.jsonl").exists() else None

    def after(*works: Callable[[], object]) -> tuple[Tree, Tree]:
        for place in (photos, to):
            shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(pristine, photos)
        for work in works:
            work()
        return tree(photos), tree(to)

    sort, correct = sorting("predictions", "cat", "cat", "dog"), sorting("corrected", "cat", "ape", "dog")
    cases = [([], sort), ([sort], correct), ([sort, correct], undo)]
    instants = 0
    for earlier, work in cases:
        again = correct if work is undo else work
        for then, expected in ((again, after(*earlier, again)), (undo, (before, {}))):
            call, is_killed = 1 - every, True
            while is_killed:
                call += every
                after(*earlier)
                is_killed = _is_killed(work, call)
                instants += is_killed
                then()
                found = tree(photos), tree(to)
                is_named_anew = work is undo and then is again
                assert found == expected or (is_named_anew and _in_folders(found) == _in_folders(expected)), (
                    call,
                    found,
                )
    sys.stdout.write(f"{instants}\n")


if __name__ == "__main__":
    main(cast(Mode, sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
