"""What a process that decodes pictures does first, so that it outlives nobody, prints nothing and is the one to go."""

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

START_METHOD = "fork" if sys.platform == "linux" else "spawn"
"""How a DataLoader's workers start: by the fork server of Python 3.14 they would be its children, and die with it."""

_PR_SET_PDEATHSIG = 1  # prctl(2)
_OOM_SCORE = 500  # proc(5): half of memory is added to this process's share when the kernel looks for one to kill


def shared_memory() -> int:
    """Bytes that tensors on their way between processes may take: half of what is free where Linux keeps them.

    A default container has 64 MB of it; what goes beyond is an error at best, and SIGBUS at worst.
    """
    if not os.path.isdir("/dev/shm"):  # noqa: S108
        return sys.maxsize
    memory = os.statvfs("/dev/shm")  # noqa: S108
    return memory.f_bavail * memory.f_frsize // 2


def share(tensor: "torch.Tensor") -> None:
    """Moves the tensor to where the main process finds it; where there is no room there, this process dies.

    A death is noticed. Left to the thread that sends it, it would be lost without a word, and waited for.
    """
    try:
        tensor.share_memory_()  # type: ignore[no-untyped-call]
    except RuntimeError:
        os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def held_signals() -> Iterator[None]:
    """SIGINT and SIGTERM wait; a process started meanwhile inherits this, so none ends it before it has settled in."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def settle_in() -> None:
    """Leaves SIGINT and SIGTERM to the parent, dies with it, prints nothing, and offers itself when memory runs out.

    What decoders print (libtiff writes to file descriptor 2) is dropped: a record says what happened. The parent's
    output is let go of, so that a reader of its pipe sees the end when the parent ends.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        parent = multiprocessing.parent_process()
        if parent is not None and parent.pid != os.getppid():  # it died before that line
            os.kill(os.getpid(), signal.SIGKILL)
        with suppress(OSError):  # no /proc here, or it may not be written
            _offer_itself()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _offer_itself() -> None:
    """Where memory runs out the kernel ends this process first; whom an administrator offers already stays so."""
    path = "/proc/self/oom_score_adj"
    with open(path) as score:
        if int(score.read()) >= _OOM_SCORE:
            return
    with open(path, "w") as score:
        score.write(str(_OOM_SCORE))
