"""Pictures through `transformers.pipeline("image-classification")`.

Called with its defaults it is what the library's documentation shows: float32, one picture at a time, on the device
that is named. Its options are the pipeline's own: the dtype, pictures a batch, and processes that decode. The pictures
are passed as one list of paths, so that the pipeline batches, decodes and resizes with nothing of ours in between.
"""

import argparse
import time

import torch
from transformers import pipeline

from beitcli.bench.rivals.files import TOP, read_list, report, write_answers


def main() -> None:
    """Classifies the pictures of a list."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "list", "out"):
        parser.add_argument(name)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0)
    asked = parser.parse_args()
    classifier = pipeline(
        "image-classification", model=asked.model, device=asked.device, dtype=getattr(torch, asked.dtype)
    )
    pictures = read_list(asked.list)
    start = time.perf_counter()
    answers = classifier(pictures, batch_size=asked.batch_size, num_workers=asked.workers, top_k=TOP)
    write_answers(asked.out, pictures, ([(each["label"], each["score"]) for each in answer] for answer in answers))
    report(len(pictures), time.perf_counter() - start)


if __name__ == "__main__":
    main()
