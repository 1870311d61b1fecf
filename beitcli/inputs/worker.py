"""Set-up of a decoding process: it dies with its parent, prints nothing and is killed first when memory runs out."""

import ctypes
import gc
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING

from beitcli.errors import OutputError

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

START_METHOD = "fork" if sys.platform == "linux" else "spawn"
"""Start method of a DataLoader's workers: those of Python 3.14's fork server would be its children, not ours."""

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that a terminal or a supervisor may send to all processes of a run; the main one stops the others."""

_LONGEST_FOLDER = 58
"""Bytes of a path to which `/beit-…/pymp-…/listener-…` can be added: a socket's has 104 on macOS, 108 on Linux."""

_PR_SET_PDEATHSIG = 1  # prctl(2)
_OOM_SCORE = 500  # proc(5): counts as half of memory when the kernel chooses a process to kill


@cache
def can_start_workers() -> bool:
    """True if processes can share locks, which Linux keeps in /dev/shm; if not, a notice says so, once."""
    try:
        multiprocessing.get_context(START_METHOD).Lock()
    except (ImportError, OSError) as error:
        log.warning(
            "no decoding processes without a writable /dev/shm (%s): as with `workers=0`, images are decoded one at a "
            "time, a decoder that crashes ends the run, and `decode_timeout=` has no effect",
            getattr(error, "strerror", None) or error,
        )
        return False
    return True


def shared_memory() -> int:
    """Bytes that tensors in transit between processes may take: half of what is free where Linux keeps them.

    A default container has 64 MB of it; more is an error at best, and SIGBUS at worst.
    """
    if sys.platform != "linux":
        return sys.maxsize
    if not os.path.isdir("/dev/shm"):  # noqa: S108
        return 0
    memory = os.statvfs("/dev/shm")  # noqa: S108
    return memory.f_bavail * memory.f_frsize // 2


def share(tensor: "torch.Tensor") -> None:
    """Move the tensor to shared memory; where there is no room, kill this process.

    A death is noticed. A failure in the thread that sends the tensor would be silent, and the parent would wait.
    """
    try:
        tensor.share_memory_()  # type: ignore[no-untyped-call]
    except RuntimeError:
        os.kill(os.getpid(), signal.SIGKILL)


def folder_for_sockets() -> str:
    """TMPDIR, or /tmp where the path of a socket below it would be too long. Raises OSError where there is none."""
    usual = tempfile.gettempdir()
    return usual if len(os.fsencode(usual)) <= _LONGEST_FOLDER else "/tmp"  # noqa: S108


@contextmanager
def folder_errors() -> Iterator[None]:
    """Convert errors of making a temporary folder to OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot make a temporary folder: {error.strerror}", "make room, or set TMPDIR to a short path"
        ) from error


@contextmanager
def held_signals() -> Iterator[None]:
    """Block requests to stop; a process started meanwhile inherits this, so none ends it before `init_worker`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def init_worker() -> None:
    """Set up a worker: ignore requests to stop, die with the parent, print nothing, be killed first for memory.

    Output of decoders (libtiff writes to file descriptor 2) is dropped: the record holds the error. The parent's
    output is closed, so that a reader of its pipe sees the end when the parent ends.
    """
    for number in _STOPPING:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
    gc.freeze()  # else a collection would copy the memory of all the parent's objects
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        parent = multiprocessing.parent_process()
        if parent is not None and parent.pid != os.getppid():  # it died before prctl
            os.kill(os.getpid(), signal.SIGKILL)
        with suppress(OSError):  # no /proc here, or it may not be written
            raise_oom_score()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def raise_oom_score() -> None:
    """Let the kernel kill this process first when memory runs out; a higher score is left as it is."""
    path = "/proc/self/oom_score_adj"
    with open(path) as score:
        if int(score.read()) >= _OOM_SCORE:
            return
    with open(path, "w") as score:
        score.write(str(_OOM_SCORE))
