"""The shapes' arithmetic, and a generated checkpoint that transformers can load."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from beitcli.bench.shapes import PUBLISHED, TINY
from beitcli.bench.weights import make_checkpoint
from beitcli.model.checkpoint import open_checkpoint
from beitcli.model.network import Beit, PixelScale
from beitcli.model.preprocessing import checkpoint_preprocessing


@pytest.mark.parametrize(("name", "gflop"), [("base-224", 35.1), ("base-384", 111), ("large-384", 382)])
def test_arithmetic_is_as_published(name: str, gflop: float) -> None:
    assert PUBLISHED[name].gflop == pytest.approx(gflop, rel=0.005)


def test_the_same_shape_gives_the_same_weights(made_model: Path, tmp_path: Path) -> None:
    first = load_file(made_model / "model.safetensors")
    second = load_file(Path(make_checkpoint(TINY, str(tmp_path / "again"))) / "model.safetensors")
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_transformers_loads_the_checkpoint(made_model: Path) -> None:
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    checkpoint = open_checkpoint(str(made_model), None)
    preprocessing = checkpoint_preprocessing(checkpoint.processor, None)
    assert len(checkpoint.labels) == 1000
    scale = PixelScale(preprocessing.factor, preprocessing.mean, preprocessing.std)
    network = Beit(checkpoint.config, checkpoint.tensors(), preprocessing.size, scale)
    pixels = torch.randint(
        0, 256, (2, *preprocessing.shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    reference = AutoModelForImageClassification.from_pretrained(made_model)
    processor = AutoImageProcessor.from_pretrained(made_model, backend="pil")
    inputs = processor(images=list(pixels.numpy()), return_tensors="pt", input_data_format="channels_last")
    with torch.no_grad():
        expected = reference(**inputs).logits
        assert network(pixels).allclose(expected, atol=1e-5)
    assert expected.std() > 0.01
