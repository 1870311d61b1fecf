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
from tests.sorting.trees import fill, ok, results, sorted_into, tree, undone

_CALLS = frozenset(
    f"os.{name}" for name in ("link", "symlink", "remove", "rename", "mkdir", "rmdir", "truncate", "utime", "chmod")
) | {"open", "shutil.copyfile", "shutil.copystat"}


def _is_killed(work: Callable[[], Sorted | Undone], call: int) -> bool:
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


def main(mode: Mode, folder: Path, other: Path, every: int) -> None:
    photos, to, predictions = folder / "photos", other / "sorted", folder / "preds.jsonl"
    pristine = folder / "pristine"
    fill(pristine, "a/cat.jpg", "a/cat.xmp", "b/cat.jpg", "b/cat.jpg.json", "b/dog.png", "b/dog.NEF")
    labels = {"a/cat.jpg": "cat", "b/cat.jpg": "cat", "b/dog.png": "dog"}
    shutil.copytree(pristine, photos)
    results(predictions, *(ok(photos / name, label) for name, label in labels.items()))
    before = tree(photos)

    def sort() -> Sorted:
        return sorted_into(to, predictions, mode=mode)

    def again() -> None:
        shutil.rmtree(photos)
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(pristine, photos)

    sort()
    sorted_photos, sorted_to = tree(photos), tree(to)
    instants = 0
    for first, seconds in ((sort, (sort, lambda: undone(to))), (lambda: undone(to), (lambda: undone(to), sort))):
        for then in seconds:
            call, is_killed = 1 - every, True
            while is_killed:
                call += every
                again()
                if first is not sort:
                    sort()
                is_killed = _is_killed(first, call)
                instants += is_killed
                if then is sort:
                    sort()
                    assert (tree(photos), tree(to)) == (sorted_photos, sorted_to), (call, tree(photos), tree(to))
                elif to.exists() and (to / "beit-sort.jsonl").exists():
                    then()
                if then is not sort:
                    assert tree(photos) == before, (call, tree(photos).keys())
                    assert tree(to) == {}, (call, tree(to).keys())
    sys.stdout.write(f"{instants}\n")


if __name__ == "__main__":
    main(cast(Mode, sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
