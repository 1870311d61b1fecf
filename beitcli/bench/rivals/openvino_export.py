"""Checkpoint -> model file for OpenVINO, exported once before its runs.

The network is that of transformers. Pixels are bytes, and normalisation is part of the model, as OpenVINO advises; the
batch size is fixed, because OpenVINO optimises static shapes better. Weights stay float32 in the file: the precision of
computation is chosen at compilation.
"""

import argparse

import openvino
import torch
from openvino.preprocess import PrePostProcessor
from torch import Tensor, nn
from transformers import AutoImageProcessor, BeitForImageClassification


class _Logits(nn.Module):
    def __init__(self, folder: str) -> None:
        super().__init__()
        self.model = BeitForImageClassification.from_pretrained(folder, attn_implementation="sdpa").eval()

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.model(pixel_values=pixels).logits
        return logits


def main() -> None:
    """Export the model of a checkpoint's folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("exported")
    parser.add_argument("--batch-size", type=int, default=1)
    options = parser.parse_args()
    network = _Logits(options.model)
    shape = [options.batch_size, 3, *2 * [network.model.config.image_size]]
    with torch.inference_mode():
        model = openvino.convert_model(network, example_input=torch.zeros(shape), input=[shape])
    processor = AutoImageProcessor.from_pretrained(options.model, backend="pil")
    mean, std = ([255 * value for value in values] for values in (processor.image_mean, processor.image_std))
    steps = PrePostProcessor(model)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    steps.input().preprocess().convert_element_type(openvino.Type.f32).mean(mean).scale(std)
    openvino.save_model(steps.build(), options.exported, compress_to_fp16=False)


if __name__ == "__main__":
    main()
