"""Preprocessing gives the same pixels as transformers' image processors and the paper's own code."""

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.Image import Resampling

from beitcli.errors import BeitError, ModelError, UsageError
from beitcli.model.preprocessing import (
    Preprocessing,
    checkpoint_preprocessing,
    paper_preprocessing,
    processor_preprocessing,
    start_of_crop,
)

SIZES = [(64, 48), (37, 53), (20, 20), (7, 5), (1, 1), (500, 1), (1, 500), (150, 31), (32, 32)]
HALF = [0.5, 0.5, 0.5]
OWN = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def noise(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width * 1000 + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def normalised(preprocessing: Preprocessing, image: Image.Image) -> np.ndarray:
    pixels = preprocessing(image)
    assert (pixels.dtype, pixels.shape) == (preprocessing.dtype, preprocessing.shape)
    return (pixels * preprocessing.factor - np.array(preprocessing.mean)) / np.array(preprocessing.std)


def square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(
            {
                "crop_size": 24,
                "do_center_crop": False,
                "do_normalize": True,
                "do_resize": True,
                "feature_extractor_type": "BeitFeatureExtractor",
                "image_mean": HALF,
                "image_std": HALF,
                "resample": 2,
                "size": 32,
            },
            id="old style",
        ),
        pytest.param({"size": 32, "crop_size": 24, "do_center_crop": True, "resample": 3}, id="old style, crop"),
        pytest.param({"size": [20, 33]}, id="old style, pair"),
        pytest.param({"size": 32, "crop_size": [20, 24], "do_center_crop": True}, id="old style, crop to a pair"),
        pytest.param({"size": square(32), "resample": 2}, id="new style"),
        pytest.param({"size": {"height": 33, "width": 17}}, id="not square, odd"),
        pytest.param({"size": square(32), "crop_size": square(24), "do_center_crop": True}, id="crop"),
        pytest.param({"size": square(33), "crop_size": square(24), "do_center_crop": True}, id="odd to even crop"),
        pytest.param({"size": square(32), "crop_size": square(23), "do_center_crop": True}, id="even to odd crop"),
        pytest.param({"size": square(20), "crop_size": square(31), "do_center_crop": True}, id="crop beyond"),
        pytest.param(
            {"size": {"height": 16, "width": 40}, "crop_size": {"height": 21, "width": 30}, "do_center_crop": True},
            id="crop beyond one side",
        ),
        pytest.param({"size": {"shortest_edge": 32}, "crop_size": square(24), "do_center_crop": True}, id="shorter"),
        pytest.param({"size": {"shortest_edge": 21}, "crop_size": square(24), "do_center_crop": True}, id="too short"),
        pytest.param({"size": 32, "do_normalize": False}, id="not normalised"),
        pytest.param({"size": 32, "do_rescale": False, **OWN}, id="not rescaled"),
        pytest.param({"size": 32, "do_rescale": False, "do_normalize": False}, id="neither"),
        pytest.param({"size": 32, "rescale_factor": 1 / 127.5, **OWN}, id="each channel its own"),
        pytest.param({"size": 32, "image_mean": 0.3, "image_std": 0.2}, id="one number for all channels"),
        pytest.param({}, id="defaults"),
        pytest.param({"do_center_crop": True, "size": 240}, id="default crop"),
    ],
)
def test_pixels_are_those_of_transformers(file: dict[str, Any], tmp_path: Path) -> None:
    from transformers.models.beit.image_processing_pil_beit import BeitImageProcessorPil

    (tmp_path / "preprocessor_config.json").write_text(json.dumps(file))
    reference = BeitImageProcessorPil.from_pretrained(tmp_path)
    preprocessing = checkpoint_preprocessing(file, None)
    for size in SIZES:
        image = noise(*size)
        expected = reference(images=image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
        np.testing.assert_allclose(normalised(preprocessing, image), expected, rtol=1e-6, atol=1e-6, err_msg=str(size))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        pytest.param(None, "no preprocessor_config.json", id="no file"),
        pytest.param({"do_resize": False}, "no common size", id="no resize"),
        pytest.param({"size": {"shortest_edge": 32}}, "no common size", id="shorter side, no crop"),
        pytest.param({"size": {"shortest_edge": 32, "longest_edge": 40}, "do_center_crop": True}, "40", id="longest"),
        pytest.param({"size": {"max_height": 32, "max_width": 33}}, "33", id="at most"),
        pytest.param({"size": None}, "None", id="no size"),
        pytest.param({"do_center_crop": True, "crop_size": {"shortest_edge": 20}}, "20", id="crop to an edge"),
        pytest.param({"resample": None}, "Resampling", id="no filter"),
        pytest.param({"resample": 17}, "Resampling", id="unknown filter"),
        pytest.param({"rescale_factor": None}, "is invalid", id="no factor"),
        pytest.param({"image_mean": None}, "is invalid", id="no mean"),
        pytest.param({"image_std": [0.5, 0.5]}, "is invalid", id="two channels"),
    ],
)
def test_configs_that_give_images_no_common_size_or_are_invalid(file: dict[str, Any] | None, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        checkpoint_preprocessing(file, None)


@pytest.mark.parametrize(
    ("file", "side", "resize", "crop"),
    [
        pytest.param({"size": 224}, 320, (320, 320), None, id="square"),
        pytest.param({"size": {"height": 20, "width": 30}}, 48, (48, 48), None, id="not square"),
        pytest.param({"size": 256, "do_center_crop": True}, 448, (512, 512), (448, 448), id="crop doubled"),
        pytest.param({"size": 256, "do_center_crop": True}, 112, (128, 128), (112, 112), id="crop halved"),
        pytest.param({"size": {"shortest_edge": 256}, "do_center_crop": True}, 336, 384, (336, 336), id="shorter side"),
        pytest.param(
            {"size": {"height": 40, "width": 60}, "crop_size": square(20), "do_center_crop": True},
            40,
            (80, 120),
            (40, 40),
            id="each side its own proportion",
        ),
    ],
)
def test_another_image_size_keeps_the_proportions(
    file: dict[str, Any], side: int, resize: Any, crop: tuple[int, int] | None
) -> None:
    preprocessing = checkpoint_preprocessing({**file, "resample": 2, **OWN}, side)
    same = checkpoint_preprocessing({**file, "resample": 2, **OWN}, None)
    assert (preprocessing.resize, preprocessing.crop, preprocessing.size) == (resize, crop, (side, side))
    assert (preprocessing.resample, preprocessing.factor, preprocessing.mean, preprocessing.std) == (
        2,
        same.factor,
        same.mean,
        same.std,
    )
    assert normalised(preprocessing, noise(70, 50)).shape == (side, side, 3)


@pytest.mark.parametrize(
    ("side", "shorter"), [(32, 36), (192, 219), (224, 256), (256, 292), (383, 437), (384, 384), (512, 512)]
)
def test_the_paper_resizes_the_shorter_side_and_crops(side: int, shorter: int) -> None:
    preprocessing = paper_preprocessing(side)
    assert (preprocessing.resize, preprocessing.size, preprocessing.resample) == (
        shorter,
        (side, side),
        Resampling.BICUBIC,
    )
    assert (preprocessing.factor, preprocessing.mean, preprocessing.std) == (1 / 255, (0.5,) * 3, (0.5,) * 3)


def torchvision_start(size: int, crop: int) -> int:
    """First row or column that torchvision's CenterCrop takes, below 0 where it pads in front."""
    if size < crop:
        return -((crop - size) // 2)
    return int(round((size - crop) / 2.0))  # noqa: RUF046  # as it is written there


@pytest.mark.parametrize("side", [224, 384])
def test_the_paper_crops_as_torchvision_does(side: int) -> None:
    preprocessing = paper_preprocessing(side)
    short = preprocessing.resize
    assert isinstance(short, int)
    sizes = {int(short * long / other) for other in range(32, 601) for long in range(other, 601)}
    assert {start_of_crop(size, side, rounded=True) - torchvision_start(size, side) for size in sizes} == {0}
    for size in range(short, short + 40):  # at its resized size an image stays as it is
        places = np.stack([np.arange(size) % 256, np.arange(size) // 256, np.zeros(size)], -1).astype(np.uint8)
        wide = np.broadcast_to(places, (short, size, 3))
        for pixels in (wide, wide.transpose(1, 0, 2)):
            row = preprocessing(Image.fromarray(np.ascontiguousarray(pixels)))
            first = row[0, 0]
            assert first[0] + 256 * int(first[1]) == torchvision_start(size, side), size


def test_the_paper_crops_an_image_of_499_by_333() -> None:
    image = noise(499, 333)
    expected = image.resize((383, 256), Resampling.BICUBIC).crop((80, 16, 304, 240))  # 79.5, half to even
    assert np.array_equal(paper_preprocessing(224)(image), np.asarray(expected))


@pytest.mark.parametrize(("size", "crop"), [((20, 33), 31), ((21, 40), 31), ((17, 18), 31), ((34, 36), 31)])
def test_images_smaller_than_the_papers_crop_are_padded_as_by_torchvision(size: tuple[int, int], crop: int) -> None:
    preprocessing = replace(paper_preprocessing(crop), resize=size)
    image = noise(size[1], size[0])
    front = [max(0, crop - side) // 2 for side in size]
    back = [(max(0, crop - side) + 1) // 2 for side in size]
    padded = np.pad(np.asarray(image), (*zip(front, back, strict=True), (0, 0)))
    top, left = (torchvision_start(side, crop) for side in padded.shape[:2])
    assert np.array_equal(preprocessing(image), padded[top : top + crop, left : left + crop])


@pytest.mark.parametrize("kind", ["LayoutLMv2ImageProcessorPil", "LayoutLMv3ImageProcessorPil"])
def test_a_reason_behind_an_empty_line_is_reported(kind: str, tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": kind}))
    with pytest.raises(ModelError, match=r"image processor fails: \S") as raised:  # it needs a package that is absent
        processor_preprocessing(str(tmp_path), None)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("size", "resized"), [((48, 64), (36, 48)), ((64, 48), (48, 36)), ((50, 50), (36, 36)), ((1, 30), (36, 1080))]
)
def test_the_paper_cuts_from_the_centre(size: tuple[int, int], resized: tuple[int, int]) -> None:
    image = noise(*size)
    left, top = (resized[0] - 32) // 2, (resized[1] - 32) // 2
    expected = image.resize(resized, Resampling.BICUBIC).crop((left, top, left + 32, top + 32))
    assert np.array_equal(paper_preprocessing(32)(image), np.asarray(expected))


@pytest.mark.parametrize(
    ("preprocessing", "twice"),
    [
        (checkpoint_preprocessing({"size": {"height": 20, "width": 30}}, None), (40, 60)),
        (checkpoint_preprocessing({"size": 32, "crop_size": 24, "do_center_crop": True}, None), (64, 64)),
        (paper_preprocessing(224), (512, 512)),
    ],
    ids=["resize", "crop", "paper"],
)
def test_an_image_may_be_decoded_at_twice_its_resized_size(
    preprocessing: Preprocessing, twice: tuple[int, int]
) -> None:
    assert preprocessing.scaled_to == twice


@pytest.fixture
def processor(tmp_path: Path) -> Callable[..., tuple[Any, str]]:
    """A transformers image processor by the name of its architecture, and a folder that has its file."""

    def make(kind: str, **options: Any) -> tuple[Any, str]:
        from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
        from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
        from transformers.models.poolformer.image_processing_pil_poolformer import PoolFormerImageProcessorPil
        from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

        kinds = {
            "bit": BitImageProcessorPil,
            "convnext": ConvNextImageProcessorPil,
            "poolformer": PoolFormerImageProcessorPil,
            "vit": ViTImageProcessorPil,
        }
        made = kinds[kind](**options)
        made.save_pretrained(tmp_path)
        return made, str(tmp_path)

    return make


PROCESSORS = [
    pytest.param("vit", {"size": square(32)}, 32, id="vit"),
    pytest.param("vit", {"size": square(32), "do_normalize": False, "resample": 0}, 32, id="vit, not normalised"),
    pytest.param("convnext", {"size": {"shortest_edge": 32}, "crop_pct": 0.875}, 32, id="convnext, crop"),
    pytest.param("convnext", {"size": {"shortest_edge": 384}, "crop_pct": 1.0}, 384, id="convnext, no crop"),
    pytest.param("poolformer", {"size": {"shortest_edge": 32}, "crop_size": square(32)}, 32, id="poolformer"),
    pytest.param("bit", {"size": {"shortest_edge": 40}, "crop_size": square(32)}, 32, id="bit"),
]


@pytest.mark.parametrize(("kind", "options", "side"), PROCESSORS)
def test_other_architectures_have_their_own_processor(
    kind: str, options: dict[str, Any], side: int, processor: Callable[..., tuple[Any, str]]
) -> None:
    reference, folder = processor(kind, **options)
    preprocessing = processor_preprocessing(folder, None)
    assert (preprocessing.shape, preprocessing.dtype) == ((3, side, side), "float32")
    for size in [(64, 48), (37, 53), (150, 31), (3, 5), (1, 3), (3, 1), (1, 1)]:
        image = noise(*size)
        pixels = preprocessing(image)
        assert (pixels.shape, pixels.dtype) == (preprocessing.shape, np.float32)
        expected = reference(images=np.asarray(image), input_data_format="channels_last", return_tensors="np")
        np.testing.assert_array_equal(pixels, expected["pixel_values"][0], err_msg=str(size))


@pytest.mark.parametrize(("kind", "options", "side"), PROCESSORS)
def test_other_architectures_at_another_image_size(
    kind: str, options: dict[str, Any], side: int, processor: Callable[..., tuple[Any, str]]
) -> None:
    preprocessing = processor_preprocessing(processor(kind, **options)[1], 48)
    assert preprocessing.shape == preprocessing(noise(64, 37)).shape == (3, 48, 48)


@pytest.mark.parametrize(
    ("kind", "options", "side", "error", "message"),
    [
        pytest.param("bit", {"do_center_crop": False}, None, ModelError, "no common size", id="shorter side only"),
        pytest.param("vit", {"do_resize": False}, None, ModelError, "no common size", id="no resize"),
        pytest.param("vit", {"do_resize": False}, 48, UsageError, "`image_size=48`", id="no resize to a size"),
        pytest.param(
            "vit", {"do_pad": True, "pad_size": square(64)}, 48, UsageError, "`image_size=48`", id="padded beyond"
        ),
        pytest.param("convnext", {"size": square(32)}, None, ModelError, "fails", id="a size it cannot take"),
    ],
)
def test_unsuitable_processors(
    kind: str,
    options: dict[str, Any],
    side: int | None,
    error: type[BeitError],
    message: str,
    processor: Callable[..., tuple[Any, str]],
) -> None:
    with pytest.raises(error, match=message):
        processor_preprocessing(processor(kind, **options)[1], side)


@pytest.mark.parametrize("content", [None, "{", '{"image_processor_type": "Unheard"}'], ids=repr)
def test_a_processor_file_that_is_missing_or_broken(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(ModelError, match=str(tmp_path)):
        processor_preprocessing(str(tmp_path), None)


@pytest.mark.parametrize("kind", ["paper", "checkpoint", "vit"])
def test_preprocessing_can_be_pickled(kind: str, processor: Callable[..., tuple[Any, str]]) -> None:
    preprocessings: dict[str, Callable[[], Any]] = {
        "paper": lambda: paper_preprocessing(32),
        "checkpoint": lambda: checkpoint_preprocessing({"size": 32, "resample": 2}, 48),
        "vit": lambda: processor_preprocessing(processor("vit", size=square(32))[1], None),
    }
    preprocessing = preprocessings[kind]()
    copy = pickle.loads(pickle.dumps(preprocessing))
    assert (copy.shape, copy.dtype, copy.scaled_to) == (
        preprocessing.shape,
        preprocessing.dtype,
        preprocessing.scaled_to,
    )
    assert np.array_equal(copy(noise(64, 48)), preprocessing(noise(64, 48)))


def test_only_the_middle_of_a_strip_is_resized() -> None:
    strip = Image.new("RGB", (40_000, 2), "blue")
    strip.paste("red", (19_900, 0, 20_100, 2))
    pixels = paper_preprocessing(224)(strip)
    assert pixels.shape == (224, 224, 3)
    assert (pixels == (255, 0, 0)).all()
