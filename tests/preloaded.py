"""`beit` as a process forked from a Python that has imported torch, and what else of others a run needs from its start.

That is most of a short run's time. Everything of our own, `beitcli/__main__.py` first, is imported and run anew in
each process, which has its own environment, folder and streams. Tests of starting, of imports, of signals and of limits
start a Python of their own.
"""

import atexit
import gc
import importlib
import os
import pickle
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from threading import Thread
from typing import Any

_LIGHT = (
    *("asyncio", "concurrent.futures", "csv", "email.message", "importlib.metadata", "importlib.resources.readers"),
    *("shlex", "sqlite3", "statistics", "typer._adapters"),
)
_TORCH = (*_LIGHT, "http.cookiejar", "multiprocessing.synchronize", "numpy", "PIL.Image", "safetensors.torch", "torch")
_WHOLE = (
    *(*_TORCH, "accelerate", "scipy.stats", "sklearn.linear_model", "sklearn.metrics", "torch._dynamo"),
    *("transformers.models.beit.modeling_beit", "transformers.models.beit.image_processing_pil_beit"),
)

_AT_START = ("GOMP", "LANG", "LC_", "LD_", "MALLOC", "OMP", "PYTHON", "TMP")
"""Beginnings of variables that count when Python or torch starts."""


def beit(
    arguments: Sequence[str | bytes],
    folder: str | os.PathLike[str],
    input: bytes = b"",  # noqa: A002  # as subprocess calls it
    env: Mapping[str, str] = os.environ,
    timeout: float = 120,
    light: bool = False,
    refused: Sequence[str] = (),
    **settings: Any,
) -> "subprocess.CompletedProcess[bytes]":
    """The finished run of `beit` in a folder, with these bytes on standard input; `light` for one without torch.

    It fails if it has imported a refused package. With other settings of `subprocess.run` it is not preloaded, and may.
    """
    command = [sys.executable, "-m", "beitcli", *arguments]
    wants_all = os.fsdecode(arguments[0] if arguments else "") in ("eval", "train", "pretrain")
    server = _server(_LIGHT if light else _WHOLE if wants_all else _TORCH, env.get("LD_PRELOAD"))
    if settings or _at_start(env) != server.environment:
        settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **settings}
        return subprocess.run(command, cwd=folder, env=env, input=input, timeout=timeout, **settings)
    (its_input, stdin), (stdout, its_output), (stderr, its_errors) = (os.pipe() for _ in range(3))
    request = pickle.dumps((list(map(os.fsdecode, arguments)), os.fspath(folder), dict(env), refused))
    socket.send_fds(server.connection, [request], [its_input, its_output, its_errors])
    for descriptor in (its_input, its_output, its_errors):
        os.close(descriptor)
    written = [b"", b""]
    threads = [Thread(target=_write, args=(stdin, input))]
    threads += [Thread(target=_read, args=(pipe, written, number)) for number, pipe in enumerate((stdout, stderr))]
    for thread in threads:
        thread.start()
    process_id = int(server.connection.recv(100))
    status = _status(server.connection, timeout)
    if status is None:
        os.kill(process_id, signal.SIGKILL)
        _status(server.connection, None)
    for thread in threads:
        thread.join()
    if status is None:
        raise subprocess.TimeoutExpired(command, timeout, *written)
    return subprocess.CompletedProcess(command, status, *written)


class _Server:
    """A Python with these modules, until this one ends, its C library overlaid by another."""

    def __init__(self, modules: tuple[str, ...], overlay: str | None) -> None:
        from beitcli.model.cpu.cores import usable_cores  # here, as the server itself is to import nothing of ours

        as_beit_does = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "3000", "OMP_NUM_THREADS": str(usable_cores())}
        self.connection, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        environment = os.environ | ({"LD_PRELOAD": overlay} if overlay else {})
        self.environment = _at_start(environment)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno()), *modules],
                env=as_beit_does | environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.PIPE,  # as each run has pipes: what Python makes of a stream depends on its kind
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        atexit.register(self._end)

    def _end(self) -> None:
        self.connection.close()
        self._process.communicate()


_server = cache(_Server)


def _at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_AT_START)}


def _status(connection: socket.socket, timeout: float | None) -> int | None:
    connection.settimeout(timeout)
    try:
        return int(connection.recv(100))
    except TimeoutError:
        return None
    finally:
        connection.settimeout(None)


def _write(descriptor: int, data: bytes) -> None:
    with suppress(BrokenPipeError), open(descriptor, "wb") as stream:
        stream.write(data)


def _read(descriptor: int, written: list[bytes], number: int) -> None:
    with open(descriptor, "rb") as stream:
        written[number] = stream.read()


def _serve(connection: socket.socket) -> None:
    """Fork a process for each request. Returns in that process, which is to be `beit`; exits when nobody asks more."""
    while True:
        request, descriptors, _, _ = socket.recv_fds(connection, 1_000_000, 3)
        if not request:
            sys.exit()
        process_id = os.fork()
        if not process_id:
            arguments, folder, environment, refused = pickle.loads(request)
            for number, descriptor in enumerate(descriptors):
                os.dup2(descriptor, number)
                os.close(descriptor)
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(environment)
            sys.argv[1:] = arguments
            sys.path[0] = folder  # as for `python -m`
            _refuse(refused)
            atexit.register(_refuse, refused)
            return
        for descriptor in descriptors:
            os.close(descriptor)
        connection.send(str(process_id).encode())
        connection.send(str(os.waitstatus_to_exitcode(os.waitpid(process_id, 0)[1])).encode())


def _refuse(packages: Sequence[str]) -> None:
    """End this process with status 70 if any of the packages is imported."""
    if imported := sys.modules.keys() & set(packages):
        os.write(2, f"Traceback: imported {', '.join(imported)}\n".encode())
        os._exit(70)


if __name__ == "__main__":
    for module in sys.argv[2:]:
        importlib.import_module(module)
    gc.freeze()  # else each process would copy the memory of all objects to look through them
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        _serve(connection)
    runpy.run_module("beitcli", run_name="__main__", alter_sys=True)
