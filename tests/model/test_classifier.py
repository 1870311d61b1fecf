"""Predictions equal those of transformers on the same pixels for every architecture, and are finite in every dtype."""

import functools
import json
import logging
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from beitcli.errors import DeviceError, ModelError
from beitcli.model.catalog import DEMO_FOLDER
from beitcli.model.checkpoint import open_checkpoint
from beitcli.model.classifier import PixelClassifier
from beitcli.model.cpu.packing import can_pack
from beitcli.model.network import Beit, PixelScale
from beitcli.model.preprocessing import checkpoint_preprocessing, processor_preprocessing
from beitcli.model.runtime import Runtime
from beitcli.records import Score

SAMPLES = Path(__file__).parent.parent.parent / "samples"
Predictions = list[tuple[Score, ...]]


@functools.cache
def images() -> list[Image.Image]:
    rng = np.random.default_rng(11)
    noise = [Image.fromarray(rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)) for _ in range(4)]
    plain = [Image.new("RGB", (30, 30), colour) for colour in ("black", "white")]
    photographs = [Image.open(path).convert("RGB") for path in sorted(SAMPLES.glob("*.jpg"))]
    return [*noise, *plain, *photographs]


def classify(folder: Path | str, dtype: str = "fp32", top_k: int = 0) -> Predictions:
    """A checkpoint's predictions for `images()`, by its own preprocessing."""
    checkpoint = open_checkpoint(str(folder), None)
    preprocessing = (
        checkpoint_preprocessing(checkpoint.processor, None)
        if checkpoint.is_beit
        else processor_preprocessing(str(folder), None)
    )
    classifier = PixelClassifier(checkpoint, preprocessing, Runtime("cpu", dtype), top_k)
    return classifier(torch.stack([torch.from_numpy(preprocessing(image).copy()) for image in images()]))


def reference(folder: Path | str, activation: Callable[[Tensor], Tensor] = lambda logits: logits.softmax(-1)) -> Tensor:
    """Scores by transformers alone, in the order of the labels."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    model = AutoModelForImageClassification.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return activation(model(**processor(images=images(), return_tensors="pt")).logits)


def values(predictions: Predictions) -> Tensor:
    """The scores in the order of the labels."""
    return torch.tensor(
        [[score.score for score in sorted(prediction, key=lambda score: score.index)] for prediction in predictions]
    )


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> Path:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a seeded tiny classifier that is no BEiT."""
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind.replace(" ", "-"))
            make_other(kind, made[kind])
        return made[kind]

    return folder


def make_other(kind: str, folder: Path) -> None:
    from transformers import (
        ConvNextConfig,
        ConvNextForImageClassification,
        ViTConfig,
        ViTForImageClassification,
        ViTModel,
    )
    from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    id2label = dict(enumerate(("ant", "bee", "cow")))
    vit = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=32, patch_size=8,
        id2label=id2label,
    )  # fmt: skip
    convnext = ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], image_size=32, id2label=id2label)
    square = ViTImageProcessorPil(size={"height": 32, "width": 32})
    network, processor = {
        "vit": lambda: (ViTForImageClassification(vit), square),
        "vit without head": lambda: (ViTModel(vit), square),
        "convnext": lambda: (
            ConvNextForImageClassification(convnext),
            ConvNextImageProcessorPil(size={"shortest_edge": 32}),
        ),
    }[kind]()
    torch.manual_seed(2)
    for parameter in network.parameters():
        parameter.data = torch.randn_like(parameter) * 0.3
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    if kind == "vit without head":
        (folder / "config.json").write_text(json.dumps(config | {"architectures": ["ViTForImageClassification"]}))


KINDS = ["tiny", "demo", "vit", "convnext"]


@pytest.fixture
def folder_of(tiny_beit: Path, others: Callable[[str], Path]) -> Callable[[str], Path]:
    return lambda kind: {"tiny": tiny_beit, "demo": Path(DEMO_FOLDER)}.get(kind) or others(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_are_those_of_transformers(kind: str, folder_of: Callable[[str], Path]) -> None:
    folder = folder_of(kind)
    expected, predictions = reference(folder), classify(folder)
    labels = open_checkpoint(str(folder), None).labels
    assert (values(predictions) - expected).abs().max() < 1e-5
    order = expected.sort(dim=-1, descending=True, stable=True).indices
    assert [[score.index for score in prediction] for prediction in predictions] == order.tolist()
    assert len({tuple(row) for row in order.tolist()}) > 1
    for prediction in predictions:
        assert [score.label for score in prediction] == [labels[score.index] for score in prediction]
        assert sorted(score.index for score in prediction) == list(range(len(labels)))
        assert math.isclose(sum(score.score for score in prediction), 1, abs_tol=1e-3)


def test_the_demo_recognises_a_cat() -> None:
    names = sorted(path.stem for path in SAMPLES.glob("*.jpg"))
    predictions = dict(zip(names, classify(DEMO_FOLDER)[-len(names) :], strict=True))
    assert predictions["cat"][0].label == "cat"


def test_a_score_is_the_shortest_decimal_of_its_float32(tiny_beit: Path) -> None:
    checkpoint = open_checkpoint(str(tiny_beit), None)
    preprocessing = checkpoint_preprocessing(checkpoint.processor, None)
    scale = PixelScale(preprocessing.factor, preprocessing.mean, preprocessing.std)
    network = Beit(checkpoint.config, checkpoint.tensors(), preprocessing.size, scale).eval()
    with torch.no_grad():
        exact = network(torch.stack([torch.from_numpy(preprocessing(image).copy()) for image in images()])).softmax(-1)
    for prediction, row in zip(classify(tiny_beit), exact.numpy(), strict=True):
        for score in prediction:
            assert score.score == pytest.approx(row[score.index], rel=1e-5)
            assert repr(score.score) == repr(float(str(np.float32(score.score))))


@pytest.mark.parametrize("kind", ["tiny", "vit"])
def test_several_labels_at_once_have_a_sigmoid_each(
    kind: str, folder_of: Callable[[str], Path], copy_of: Callable[..., Path]
) -> None:
    folder = copy_of(folder_of(kind), problem_type="multi_label_classification")
    predictions, expected = classify(folder), reference(folder, torch.sigmoid)
    assert (values(predictions) - expected).abs().max() < 1e-5
    assert all(
        [score.score for score in prediction] == sorted((s.score for s in prediction), reverse=True)
        for prediction in predictions
    )
    assert (expected.sum(-1) - 1).abs().max() > 0.1


def with_outputs(folder: Path, count: int) -> Path:
    """The checkpoint with only its first labels."""

    def shorten(tensors: dict[str, Tensor]) -> None:
        for name in ("classifier.weight", "classifier.bias"):
            tensors[name] = tensors[name][:count].contiguous()

    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {str(index): f"label {index}" for index in range(count)}
    (folder / "config.json").write_text(json.dumps(config | {"label2id": None}))
    return rewrite(folder, shorten)


@pytest.mark.parametrize("problem", [None, "regression", "multi_label_classification"])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("kind", ["tiny", "vit"])
def test_scores_are_those_of_the_pipeline(
    kind: str, count: int, problem: str | None, folder_of: Callable[[str], Path], copy_of: Callable[..., Path]
) -> None:
    from transformers import AutoImageProcessor, pipeline

    folder = with_outputs(copy_of(folder_of(kind), problem_type=problem), count)
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    reference = pipeline("image-classification", str(folder), image_processor=processor, device="cpu")
    predictions = classify(folder)
    for prediction, expected in zip(predictions, reference(images(), top_k=count), strict=True):
        assert [score.label for score in prediction] == [each["label"] for each in expected]
        assert [score.score for score in prediction] == pytest.approx([each["score"] for each in expected], abs=1e-5)
    assert len({score.score for prediction in predictions for score in prediction}) > count
    assert all(0 < score.score < 1 for prediction in predictions for score in prediction) == (problem != "regression")


@pytest.mark.parametrize("kind", ["tiny", "vit"])
def test_a_missing_tensor_is_reported_with_its_checkpoint(
    kind: str, folder_of: Callable[[str], Path], copy_of: Callable[..., Path]
) -> None:
    folder = copy_of(folder_of(kind))
    rewrite(folder, lambda tensors: tensors.__delitem__("classifier.bias"))
    with pytest.raises(ModelError, match=f"`{folder}`.*`classifier.bias`"):
        classify(folder)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize("kind", ["tiny", "vit"])
def test_weights_that_are_not_finite_are_named_before_any_image(
    kind: str,
    value: float,
    folder_of: Callable[[str], Path],
    copy_of: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "beitcli")
    folder = copy_of(folder_of(kind))
    rewrite(folder, lambda tensors: tensors["classifier.weight"].view(-1)[1].fill_(value))
    checkpoint = open_checkpoint(str(folder), None)
    preprocessing = (
        checkpoint_preprocessing(checkpoint.processor, None)
        if kind == "tiny"
        else processor_preprocessing(str(folder), None)
    )
    with pytest.raises(ModelError, match=f"`{folder}`: the weights are not finite: `classifier.weight`"):
        PixelClassifier(checkpoint, preprocessing, Runtime("cpu", "fp32"), 1)
    assert caplog.messages == []


@pytest.mark.parametrize(("dtype", "huge"), [(torch.float16, 65504.0), (torch.bfloat16, 3e38), (torch.float32, 3e38)])
def test_huge_weights_are_finite(
    dtype: torch.dtype, huge: float, tiny_beit: Path, copy_of: Callable[..., Path]
) -> None:
    def enlarge(tensors: dict[str, Tensor]) -> None:
        tensors["classifier.bias"].fill_(huge)  # their sum is beyond the dtype
        for name in tensors:
            tensors[name] = tensors[name].to(dtype)

    predictions = classify(rewrite(copy_of(tiny_beit), enlarge))
    assert all(math.isfinite(score.score) for prediction in predictions for score in prediction)


@pytest.mark.parametrize(("top_k", "count"), [(0, 5), (1, 1), (3, 3), (5, 5), (6, 5), (1000, 5)])
def test_top_k(top_k: int, count: int, tiny_beit: Path) -> None:
    predictions = classify(tiny_beit, top_k=top_k)
    assert predictions == [prediction[:count] for prediction in classify(tiny_beit)]
    assert {len(prediction) for prediction in predictions} == {count}


def test_equal_scores_are_in_the_order_of_the_labels(tiny_beit: Path, copy_of: Callable[..., Path]) -> None:
    def even(tensors: dict[str, Tensor]) -> None:
        tensors["classifier.weight"].zero_()
        tensors["classifier.bias"].copy_(torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0]))

    for prediction in classify(rewrite(copy_of(tiny_beit), even)):
        assert [score.index for score in prediction] == [1, 3, 0, 2, 4]


@pytest.mark.parametrize("kind", ["tiny", "vit"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("fp16", 0.01), ("bf16", 0.1)])
def test_smaller_dtypes_are_close(dtype: str, tolerance: float, kind: str, folder_of: Callable[[str], Path]) -> None:
    exact, predictions = values(classify(folder_of(kind))), values(classify(folder_of(kind), dtype))
    assert 0 < (predictions - exact).abs().max() < tolerance


@pytest.fixture
def overflowing(tiny_beit: Path, copy_of: Callable[..., Path]) -> Path:
    """A BEiT whose best logits are beyond fp16 (65520 rounds to infinity) for four of the images."""
    from transformers import BeitForImageClassification

    model = BeitForImageClassification.from_pretrained(tiny_beit)
    model.classifier.bias.data.zero_()
    preprocessing = checkpoint_preprocessing(open_checkpoint(str(tiny_beit), None).processor, None)
    pixels = torch.stack([torch.from_numpy(preprocessing(image) / 127.5 - 1).float() for image in images()])
    with torch.no_grad():
        best = model(pixels.permute(0, 3, 1, 2)).logits.amax(-1).sort(descending=True).values
    assert best[3] / best[4] > 1.03

    def enlarge(tensors: dict[str, Tensor]) -> None:
        tensors["classifier.weight"] *= (65520 - 65472) / best[3:5].mean()
        tensors["classifier.bias"].fill_(65472)

    return rewrite(copy_of(tiny_beit), enlarge)


def test_rows_that_overflow_fp16_have_the_predictions_of_fp32(
    overflowing: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "beitcli")
    exact = classify(overflowing)
    assert caplog.messages == []
    predictions = classify(overflowing, "fp16")
    assert caplog.messages == ["4 images overflow fp16 and are computed in fp32"]
    assert sum(own == other for own, other in zip(predictions, exact, strict=True)) == 4


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
@pytest.mark.parametrize("name", ["classifier.bias", "beit.encoder.layer.0.output.dense.weight"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_no_classifier(
    name: str, value: float, dtype: str, tiny_beit: Path, copy_of: Callable[..., Path]
) -> None:
    folder = rewrite(copy_of(tiny_beit), lambda tensors: tensors[name].view(-1)[0].fill_(value))
    with pytest.raises(ModelError, match="not finite"):
        classify(folder, dtype)


def test_a_model_without_head_is_an_error(others: Callable[[str], Path]) -> None:
    with pytest.raises(ModelError, match=r"`classifier\.\w+`"):
        classify(others("vit without head"))


@pytest.mark.parametrize("count", [2, 6])
@pytest.mark.parametrize("kind", ["tiny", "vit"])
def test_as_many_labels_as_outputs(
    kind: str, count: int, folder_of: Callable[[str], Path], copy_of: Callable[..., Path]
) -> None:
    folder = copy_of(folder_of(kind), id2label={str(index): f"label {index}" for index in range(count)}, label2id=None)
    with pytest.raises(ModelError, match=r"5 outputs and \d labels|`classifier\.\w+`"):
        classify(folder)


def truncate(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-100])


@pytest.mark.parametrize(
    "change",
    [truncate, lambda folder: (folder / "model.safetensors").unlink()],
    ids=["truncated", "none"],
)
def test_weights_of_other_architectures_that_cannot_be_read(
    change: Callable[[Path], None], others: Callable[[str], Path], copy_of: Callable[..., Path]
) -> None:
    folder = copy_of(others("vit"))
    change(folder)
    with pytest.raises(ModelError, match=str(folder)) as raised:
        classify(folder)
    assert "\n" not in str(raised.value)


def test_code_in_a_bin_of_another_architecture_does_not_run(
    others: Callable[[str], Path], trap: Callable[[Path], object], copy_of: Callable[..., Path]
) -> None:
    folder = copy_of(others("vit"))
    (folder / "model.safetensors").unlink()
    torch.save({"classifier.weight": trap(folder / "sprung")}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="more than plain tensors"):
        classify(folder)
    assert not (folder / "sprung").exists()


@pytest.mark.parametrize(
    "changes",
    [{"model_type": "unheard-of"}, {"model_type": "bert"}, {"model_type": None}, {"hidden_act": "unheard-of"}],
    ids=repr,
)
def test_architectures_that_classify_no_images(
    changes: dict[str, Any], others: Callable[[str], Path], copy_of: Callable[..., Path]
) -> None:
    with pytest.raises(ModelError):
        classify(copy_of(others("vit"), **changes))


def test_code_that_a_checkpoint_brings_is_not_run(others: Callable[[str], Path], copy_of: Callable[..., Path]) -> None:
    folder = copy_of(
        others("vit"),
        model_type="brought",
        auto_map={"AutoConfig": "code.Config", "AutoModelForImageClassification": "code.Model"},
    )
    (folder / "code.py").write_text(f"open({str(folder / 'sprung')!r}, 'w')")
    with pytest.raises(ModelError):
        classify(folder)
    assert not (folder / "sprung").exists()


SCRIPT = """
import sys
import torch
from beitcli.errors import DeviceError, ModelError
from beitcli.model.checkpoint import open_checkpoint
from beitcli.model.classifier import PixelClassifier
from beitcli.model.preprocessing import checkpoint_preprocessing, processor_preprocessing
from beitcli.model.runtime import Runtime

def report(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        print(event, arguments, file=sys.stderr)

sys.addaudithook(report)
for folder in sys.argv[1:]:
    checkpoint = open_checkpoint(folder, None)
    beit = checkpoint.is_beit
    own = checkpoint_preprocessing(checkpoint.processor, None) if beit else None
    preprocessing = own or processor_preprocessing(checkpoint.folder, None)
    try:
        classifier = PixelClassifier(checkpoint, preprocessing, Runtime("cpu", "fp32"), 1)
        assert len(classifier(torch.zeros(2, *preprocessing.shape, dtype=getattr(torch, preprocessing.dtype)))) == 2
    except ModelError:
        assert "head" in folder
    assert beit == ("transformers" not in sys.modules)
"""


@pytest.mark.slow
def test_a_folder_is_read_in_silence_and_without_network(others: Callable[[str], Path]) -> None:
    folders = [DEMO_FOLDER, *(str(others(kind)) for kind in ("vit", "convnext", "vit without head"))]
    online = {**os.environ, "HF_HUB_OFFLINE": "0"}
    process = subprocess.run([sys.executable, "-c", SCRIPT, *folders], env=online, capture_output=True, timeout=120)
    assert (process.returncode, process.stdout, process.stderr) == (0, b"", b"")


@pytest.mark.slow
def test_a_network_larger_than_memory_is_a_device_error(tiny_beit: Path) -> None:
    checkpoint = open_checkpoint(str(tiny_beit), None)
    preprocessing = checkpoint_preprocessing(checkpoint.processor, 8 * 4096)
    with pytest.raises(DeviceError, match="too little memory"):
        PixelClassifier(checkpoint, preprocessing, Runtime("cpu", "fp32"), 1)


@pytest.mark.skipif(not can_pack(torch.float32) or not Path("/proc/self/maps").exists(), reason="weights stay mapped")
@pytest.mark.parametrize("dtype", ["fp32", "int8"])
def test_a_loaded_network_leaves_the_file_of_its_weights(dtype: str, tiny_beit: Path, tmp_path: Path) -> None:
    """Pages of it that stay mapped are in memory beside the network's own copy, gigabytes of a large one."""
    folder = Path(shutil.copytree(tiny_beit, tmp_path / "model"))
    checkpoint = open_checkpoint(str(folder), None)
    preprocessing = checkpoint_preprocessing(checkpoint.processor, 32)
    classifier = PixelClassifier(checkpoint, preprocessing, Runtime("cpu", dtype), 1)
    assert str(folder) not in Path("/proc/self/maps").read_text()
    assert len(classifier(torch.zeros(1, 32, 32, 3, dtype=torch.uint8))) == 1
