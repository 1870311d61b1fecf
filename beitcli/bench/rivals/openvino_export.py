"""A checkpoint -> a model for OpenVINO, once, so that its runs start with a file that is ready to be compiled.

The network is that of transformers. Pixels come in as bytes, and normalisation becomes part of the model, as OpenVINO
advises; the batch size is fixed, because it optimises static shapes better. Weights stay float32 in the file: in which
precision it computes is chosen when it is compiled.
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
    """Writes the model of a checkpoint's folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("exported")
    parser.add_argument("--batch-size", type=int, default=1)
    asked = parser.parse_args()
    network = _Logits(asked.model)
    shape = [asked.batch_size, 3, *2 * [network.model.config.image_size]]
    with torch.inference_mode():
        model = openvino.convert_model(network, example_input=torch.zeros(shape), input=[shape])
    processor = AutoImageProcessor.from_pretrained(asked.model, backend="pil")
    mean, std = ([255 * value for value in values] for values in (processor.image_mean, processor.image_std))
    steps = PrePostProcessor(model)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    steps.input().preprocess().convert_element_type(openvino.Type.f32).mean(mean).scale(std)
    openvino.save_model(steps.build(), asked.exported, compress_to_fp16=False)


if __name__ == "__main__":
    main()
