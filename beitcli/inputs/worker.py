"""What a process that decodes pictures does first, so that it outlives nobody, prints nothing and is the one to go."""

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_PR_SET_PDEATHSIG = 1  # prctl(2)
_OOM_SCORE = 500  # proc(5): half of memory is added to this process's share when the kernel looks for one to kill


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
        with open("/proc/self/oom_score_adj", "w") as score:
            score.write(str(_OOM_SCORE))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)
