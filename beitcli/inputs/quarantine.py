"""Images in flight when a decoder died, decoded one at a time in an isolated process."""

import multiprocessing
import os
import signal
from collections.abc import Generator, Sequence
from contextlib import nullcontext, suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from beitcli.inputs.decode import Decoding, Outcome, Preprocess, outcome
from beitcli.inputs.worker import held_signals, init_worker
from beitcli.records import UNKNOWN, Failure, Fetched, Identity, Source, source_of


def decode_alone(
    items: Sequence[Source | Fetched], preprocess: Preprocess, decoding: Decoding
) -> Generator[Outcome, None, None]:
    """Results of the images, in order.

    A fresh process without torch decodes them one by one. An image that kills two of them, or one by the time limit,
    gets the code (`timeout`, `out_of_memory` or `decoder_crashed`): a single death may have another cause.
    """
    with _DecoderProcess(preprocess, decoding) as decoder:
        for item in items:
            result = decoder.decode(item)
            if result is None and decoder.exit_code != -signal.SIGALRM:
                result = decoder.decode(item)
            if result is None:
                result = Failure(
                    source_of(item), *_cause_of_death(decoder.exit_code, decoding.seconds), _identity(item)
                )
            yield result


class _DecoderProcess:
    """A process that decodes, replaced when it dies; `exit_code` is that of the last one."""

    def __init__(self, preprocess: Preprocess, decoding: Decoding) -> None:
        self.exit_code = 0
        self._task = (preprocess, decoding)
        self._process: SpawnProcess | None = None

    def __enter__(self) -> "_DecoderProcess":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._pipe.close()
            self._process.kill()
            self._process.join()

    def decode(self, item: Source | Fetched) -> Outcome | None:
        """The result, or None where the process died."""
        process = self._process or self._start()
        try:
            self._pipe.send(item)
            result: Outcome = self._pipe.recv()
            return result
        except (EOFError, ConnectionError):
            self._pipe.close()
            process.join()
            self.exit_code, self._process = process.exitcode or 0, None
            return None

    def _start(self) -> SpawnProcess:
        self._pipe, child_end = multiprocessing.Pipe()
        arguments = (child_end, *self._task)
        process = multiprocessing.get_context("spawn").Process(target=_decode_all, args=arguments, daemon=True)
        with held_signals():
            process.start()
        child_end.close()
        self._process = process
        return process


def _cause_of_death(exit_code: int, seconds: float) -> tuple[str, str]:
    """The error code and message for how the process ended."""
    if exit_code == -signal.SIGALRM:
        return "timeout", f"not decoded within {seconds:g} s (--decode-timeout)"
    if exit_code == -signal.SIGKILL:
        return "out_of_memory", "the decoder was killed, as the kernel does when memory runs out"
    ended_by = signal.Signals(-exit_code).name if exit_code < 0 else f"exit status {exit_code}"
    return "decoder_crashed", f"the decoder crashed ({ended_by})"


def _identity(item: Source | Fetched) -> Identity:
    """Identity of the image as it is now: the process that read it did not live to report it."""
    if isinstance(item, Fetched):
        return item.identity
    with suppress(OSError):
        return Identity.of_file(os.stat(item.location))
    return UNKNOWN


def _decode_all(pipe: Connection, preprocess: Preprocess, decoding: Decoding) -> None:
    init_worker()
    while True:
        try:
            item: Source | Fetched = pipe.recv()
        except EOFError:
            return
        pipe.send(outcome(item, preprocess, decoding, nullcontext()))
