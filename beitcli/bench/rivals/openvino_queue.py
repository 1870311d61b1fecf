"""Images through OpenVINO on a CPU: its throughput mode, asynchronous requests, and threads that decode.

The throughput hint lets OpenVINO choose the number of parallel requests; its queue keeps them all busy. Threads suffice
for decoding, because Pillow releases the interpreter lock while it decodes and resizes; they decode ahead, so that the
queue does not wait. Compiled models are cached beside the model.
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

from beitcli.bench.rivals.files import TOP, listed_images, print_rate, write_predictions

_LOOKAHEAD = 64


def main() -> None:
    """Classify the images of a list."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "exported", "list", "out"):
        parser.add_argument(name)
    parser.add_argument("--dtype", choices=("bf16", "fp32"), default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    network = _compiled(options.exported, "bf16" if options.dtype == "bf16" else "f32")
    queue = openvino.AsyncInferQueue(network)
    with open(os.path.join(options.model, "config.json"), encoding="utf-8") as stream:
        labels = [label for _, label in sorted(json.load(stream)["id2label"].items(), key=lambda pair: int(pair[0]))]
    images = listed_images(options.list)
    start = time.perf_counter()
    logits = _logits(network, queue, images, options.threads)
    write_predictions(options.out, images, (_best(row, labels) for row in logits))
    print_rate(len(images), time.perf_counter() - start)
    sys.stderr.flush()
    os._exit(0)  # its destructors wait, holding the interpreter's lock, for threads that may want it (2026.4)


def _compiled(exported: str, precision: str) -> Any:
    settings = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_PRECISION_HINT": precision,
        "CACHE_DIR": f"{exported}.cache",
    }
    return openvino.Core().compile_model(exported, "CPU", settings)


def _logits(network: Any, queue: Any, images: list[str], threads: int) -> np.ndarray:
    """The logits of all images; the last batch is padded with zeros."""
    size, height, width, _ = network.input(0).shape
    logits = np.empty((len(images), network.output(0).shape[1]), np.float32)

    def keep(request: Any, first: int) -> None:
        rows = logits[first : first + size]
        rows[:] = request.get_output_tensor(0).data[: len(rows)]

    queue.set_callback(keep)
    with ThreadPoolExecutor(threads) as pool:
        pixels = _decoded(pool, images, (width, height))
        for first in range(0, len(images), size):
            batch = np.zeros((size, height, width, 3), np.uint8)
            for row, image in enumerate(islice(pixels, size)):
                batch[row] = image
            queue.start_async([batch], userdata=first)
    queue.wait_all()
    return logits


def _decoded(pool: ThreadPoolExecutor, images: Iterable[str], size: tuple[int, int]) -> Iterator[np.ndarray]:
    """The pixels of each image in order, decoded a few images ahead."""
    pending: deque[Future[np.ndarray]] = deque()
    for image in images:
        pending.append(pool.submit(_decode, image, size))
        if len(pending) > _LOOKAHEAD:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _decode(path: str, size: tuple[int, int]) -> np.ndarray:
    """Same decoding as transformers' `load_image` and image processor: upright, RGB, bilinear."""
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
        return np.asarray(upright.resize(size, Image.Resampling.BILINEAR))


def _best(logits: np.ndarray, labels: list[str]) -> list[tuple[str, float]]:
    powers = np.exp(logits - logits.max())
    scores = powers / powers.sum()
    return [(labels[index], float(scores[index])) for index in np.argsort(-scores)[:TOP]]


if __name__ == "__main__":
    main()
