"""Pictures through OpenVINO on a CPU: its throughput mode, asynchronous requests, and threads that decode.

The throughput hint lets OpenVINO choose how many requests run beside each other; its queue keeps them all busy. Threads
are enough for decoding, because Pillow lets go of the interpreter while it decodes and resizes, and they are a few
pictures ahead, so that the queue never waits for one that could be there. What it compiles is cached beside the model.
"""

import argparse
import json
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
import openvino
from PIL import Image, ImageOps

from beitcli.bench.rivals.files import TOP, read_list, report, write_answers

_AHEAD = 64


def main() -> None:
    """Classifies the pictures of a list."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "exported", "list", "out"):
        parser.add_argument(name)
    parser.add_argument("--dtype", choices=("bf16", "fp32"), default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    network = _compiled(asked.exported, "bf16" if asked.dtype == "bf16" else "f32")
    queue = openvino.AsyncInferQueue(network)
    with open(os.path.join(asked.model, "config.json"), encoding="utf-8") as stream:
        labels = [label for _, label in sorted(json.load(stream)["id2label"].items(), key=lambda pair: int(pair[0]))]
    pictures = read_list(asked.list)
    start = time.perf_counter()
    logits = _logits(network, queue, pictures, asked.threads)
    write_answers(asked.out, pictures, (_best(row, labels) for row in logits))
    report(len(pictures), time.perf_counter() - start)
    sys.stderr.flush()
    os._exit(0)  # its destructors wait, holding the interpreter's lock, for threads that may want it (2026.4)


def _compiled(exported: str, precision: str) -> Any:
    settings = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_PRECISION_HINT": precision,
        "CACHE_DIR": f"{exported}.cache",
    }
    return openvino.Core().compile_model(exported, "CPU", settings)


def _logits(network: Any, queue: Any, pictures: list[str], threads: int) -> np.ndarray:
    """The logits of all pictures; the last batch is filled up with what the one before left there."""
    size, height, width, _ = network.input(0).shape
    answers = np.empty((len(pictures), network.output(0).shape[1]), np.float32)

    def keep(request: Any, first: int) -> None:
        rows = answers[first : first + size]
        rows[:] = request.get_output_tensor(0).data[: len(rows)]

    queue.set_callback(keep)
    with ThreadPoolExecutor(threads) as pool:
        pixels = _decoded(pool, pictures, (width, height))
        for first in range(0, len(pictures), size):
            batch = np.zeros((size, height, width, 3), np.uint8)
            for row, picture in enumerate(islice(pixels, size)):
                batch[row] = picture
            queue.start_async([batch], userdata=first)
    queue.wait_all()
    return answers


def _decoded(pool: ThreadPoolExecutor, pictures: Iterable[str], size: tuple[int, int]) -> Iterator[np.ndarray]:
    """The pixels of each picture in order, decoded a few pictures ahead."""
    waiting: deque[Future[np.ndarray]] = deque()
    for picture in pictures:
        waiting.append(pool.submit(_decode, picture, size))
        if len(waiting) > _AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _decode(path: str, size: tuple[int, int]) -> np.ndarray:
    """What transformers' `load_image` and image processor do: upright, RGB, bilinear."""
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
        return np.asarray(upright.resize(size, Image.Resampling.BILINEAR))


def _best(logits: np.ndarray, labels: list[str]) -> list[tuple[str, float]]:
    powers = np.exp(logits - logits.max())
    scores = powers / powers.sum()
    return [(labels[index], float(scores[index])) for index in np.argsort(-scores)[:TOP]]


if __name__ == "__main__":
    main()
