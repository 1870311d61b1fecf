"""Images through `transformers.pipeline("image-classification")`.

Its defaults are those of the library's documentation: float32, one image at a time, on the named device. Its options
are the pipeline's own: dtype, batch size, and decoding processes. The images are passed as one list of paths, so that
the pipeline itself batches, decodes and resizes.
"""

import argparse
import time

import torch
from transformers import pipeline

from beitcli.bench.rivals.files import TOP, listed_images, print_rate, write_predictions


def main() -> None:
    """Classify the images of a list."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "list", "out"):
        parser.add_argument(name)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    classifier = pipeline(
        "image-classification", model=options.model, device=options.device, dtype=getattr(torch, options.dtype)
    )
    images = listed_images(options.list)
    start = time.perf_counter()
    predictions = classifier(images, batch_size=options.batch_size, num_workers=options.workers, top_k=TOP)
    write_predictions(
        options.out, images, ([(each["label"], each["score"]) for each in prediction] for prediction in predictions)
    )
    print_rate(len(images), time.perf_counter() - start)


if __name__ == "__main__":
    main()
