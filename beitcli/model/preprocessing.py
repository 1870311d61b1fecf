"""Image -> pixels: by the checkpoint's own file, as for the published accuracies, or by transformers."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image
from PIL.Image import Resampling

from beitcli.errors import ModelError, UsageError, first_line

_LONGEST_STRIP = 50
"""Aspect ratio above which only the middle of an image is resized; the crop takes less of it anyway."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Transform of an RGB image into uint8 pixels of shape (height, width, 3), identical to those of transformers.

    `resize` is (height, width), or one number for the shorter side; `crop` is (height, width) cut from the centre,
    padded with black: from torchvision's centre, halves rounded to even, if `rounded`, else from that of transformers.
    `factor`, `mean` and `std` are for the network: it normalises `byte * factor`.
    """

    resize: tuple[int, int] | int
    crop: tuple[int, int] | None
    resample: int
    factor: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rounded: bool = False
    dtype = "uint8"

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the result."""
        size = self.crop or self.resize
        return (size, size) if isinstance(size, int) else size

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.size, 3)

    @property
    def scaled_to(self) -> tuple[int, int]:
        """The smallest (height, width) that an image may be decoded at: twice what it is resized to."""
        height, width = (self.resize, self.resize) if isinstance(self.resize, int) else self.resize
        return 2 * height, 2 * width

    def __call__(self, image: Image.Image) -> np.ndarray:
        if isinstance(self.resize, int):
            image = _without_ends(image)
            short, long = sorted(image.size)
            other = int(self.resize * long / short)
            height, width = (other, self.resize) if image.width == short else (self.resize, other)
        else:
            height, width = self.resize
        resized = image.resize((width, height), Resampling(self.resample))
        return np.asarray(resized if self.crop is None else _centre(resized, *self.crop, self.rounded))


def _without_ends(image: Image.Image) -> Image.Image:
    """The middle of a strip: an image of 20,000 × 1 pixels, resized by its shorter side, would take gigabytes."""
    longest = _LONGEST_STRIP * min(image.size)
    return _centre(image, min(image.height, longest), min(image.width, longest))


def _centre(image: Image.Image, height: int, width: int, rounded: bool = False) -> Image.Image:
    left, top = start_of_crop(image.width, width, rounded), start_of_crop(image.height, height, rounded)
    return image.crop((left, top, left + width, top + height))


def start_of_crop(size: int, crop: int, rounded: bool) -> int:
    """First row or column of a centre crop, below 0 where the image is smaller: as torchvision's if `rounded`."""
    if not rounded:
        return (size - crop) // 2
    return (
        round((size - crop) / 2) if size > crop else -((crop - size) // 2)
    )  # torchvision pads the larger half at the end


def paper_preprocessing(side: int) -> Preprocessing:
    """Preprocessing behind the published accuracies: `datasets.py` of the paper's own code (unilm/beit)."""
    resize = int(side / (224 / 256)) if side < 384 else side
    return Preprocessing(resize, (side, side), Resampling.BICUBIC, 1 / 255, (0.5,) * 3, (0.5,) * 3, rounded=True)


def checkpoint_preprocessing(processor: Mapping[str, Any] | None, side: int | None) -> Preprocessing:
    """Preprocessing as a BEiT checkpoint describes its image processor, for images of `side` pixels if that is given.

    Missing keys have the defaults of transformers' `BeitImageProcessor`. Raises ModelError if there is
    no description, or it does not give every image the same size.
    """
    if processor is None:
        raise ModelError(
            "the checkpoint has no preprocessor_config.json, nor a processor_config.json that describes images",
            "copy the file of a similar model there, or use `preprocess=paper`",
        )
    if not processor.get("do_resize", True):
        raise ModelError("the checkpoint does not resize images, so they have no common size")
    do_normalize = processor.get("do_normalize", True)
    try:
        preprocessing = Preprocessing(
            resize=_resize_of(processor.get("size", 224)),
            crop=_pair(processor.get("crop_size", 224)) if processor.get("do_center_crop", False) else None,
            resample=Resampling(processor.get("resample", Resampling.BICUBIC)),
            factor=float(processor.get("rescale_factor", 1 / 255)) if processor.get("do_rescale", True) else 1.0,
            mean=_channels(processor.get("image_mean", 0.5) if do_normalize else 0.0),
            std=_channels(processor.get("image_std", 0.5) if do_normalize else 1.0),
        )
    except (TypeError, ValueError) as error:
        raise ModelError(f"the checkpoint's image processor is invalid: {error}") from error
    if isinstance(preprocessing.resize, int) and preprocessing.crop is None:
        raise ModelError("the checkpoint resizes images without cropping them, so they have no common size")
    return preprocessing if side is None else _at(preprocessing, side)


def _at(preprocessing: Preprocessing, side: int) -> Preprocessing:
    """The same preprocessing for another size: the ratio of resize to crop stays."""
    if preprocessing.crop is None:
        return replace(preprocessing, resize=(side, side))
    enlarged = tuple(
        round(side * size / crop) for size, crop in zip(preprocessing.scaled_to, preprocessing.crop, strict=True)
    )
    resize = enlarged[0] // 2 if isinstance(preprocessing.resize, int) else (enlarged[0] // 2, enlarged[1] // 2)
    return replace(preprocessing, resize=resize, crop=(side, side))


def _resize_of(size: Any) -> tuple[int, int] | int:
    match size:
        case {"shortest_edge": int(edge), **others} if not any(others.values()):
            return edge
    return _pair(size)


def _pair(size: Any) -> tuple[int, int]:
    """(height, width) from any form that the files use. Raises ValueError for another form."""
    match size:
        case int():
            return size, size
        case [int(height), int(width)] | {"height": int(height), "width": int(width)}:
            return height, width
    raise ValueError(f"a size of {size}")


def _channels(value: Any) -> tuple[float, ...]:
    """Three numbers from three or one. Raises TypeError or ValueError for anything else."""
    red, green, blue = (value,) * 3 if isinstance(value, int | float) else value
    return float(red), float(green), float(blue)


@dataclass(frozen=True, slots=True)
class ProcessorPreprocessing:
    """Transform of an RGB image into float32 pixels of `shape` (3, height, width) by a transformers image processor."""

    processor: Any
    shape: tuple[int, ...]
    dtype = "float32"
    scaled_to = None

    def __call__(self, image: Image.Image) -> np.ndarray:
        pixels = self.processor(images=image, return_tensors="np", input_data_format="channels_last")
        return np.asarray(pixels["pixel_values"][0], dtype=np.float32)


def processor_preprocessing(folder: str, side: int | None) -> ProcessorPreprocessing:
    """Preprocessing of a checkpoint that is no BEiT, by its image processor; imports transformers.

    Raises ModelError if no file describes one or images of different shape would get different sizes, UsageError if
    the processor cannot make images of `side` pixels.
    """
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(folder, backend="pil", trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(f"no image processor in `{folder}`: {first_line(error)}") from error
    if side is not None:
        _resize_processor(processor, side)
    preprocessing = ProcessorPreprocessing(processor, ())
    try:
        shape, other = (preprocessing(Image.new("RGB", size)).shape for size in ((640, 480), (480, 640)))
    except (AttributeError, ImportError, LookupError, TypeError, ValueError) as error:
        raise ModelError(f"the checkpoint's image processor fails: {first_line(error)}") from error
    if shape != other:
        raise ModelError("the checkpoint's image processor gives images no common size", "try `image_size=`")
    if side is not None and shape[1:] != (side, side):
        raise UsageError(f"`image_size={side}`: the checkpoint's image processor makes images of {shape[1:]}")
    return ProcessorPreprocessing(processor, shape)


def _resize_processor(processor: Any, side: int) -> None:
    if not processor.do_resize:
        raise UsageError(f"`image_size={side}`: the checkpoint's image processor does not resize")
    square = {"height": side, "width": side}
    if hasattr(processor, "crop_pct"):  # ConvNeXT, PoolFormer: the resize follows from the crop
        processor.size, processor.crop_size = {"shortest_edge": side}, square
    else:
        processor.size, processor.do_center_crop = square, False
