"""Picture -> pixels, as the checkpoint's own file says, as the published figures were measured, or by transformers."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image
from PIL.Image import Resampling

from beitcli.errors import ModelError, UsageError, first_line

_LONGEST_STRIP = 50
"""Sides' ratio from which on only the middle of a picture is resized, of which the crop shows less anyway."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Turns an RGB picture into uint8 pixels of shape (height, width, 3), the very ones that transformers resizes to.

    `resize` is (height, width), or one number for the shorter side; `crop` is (height, width) cut from the centre, what
    lies outside the image black: from torchvision's centre, half an image row to even, if `rounded`, else from that of
    transformers. `factor`, `mean` and `std` are for the network: it normalises `byte * factor`.
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
        """The smallest (height, width) that a picture may be decoded at: twice what it is resized to."""
        height, width = (self.resize, self.resize) if isinstance(self.resize, int) else self.resize
        return 2 * height, 2 * width

    def __call__(self, picture: Image.Image) -> np.ndarray:
        if isinstance(self.resize, int):
            picture = _shortened(picture)
            short, long = sorted(picture.size)
            other = int(self.resize * long / short)
            height, width = (other, self.resize) if picture.width == short else (self.resize, other)
        else:
            height, width = self.resize
        resized = picture.resize((width, height), Resampling(self.resample))
        return np.asarray(resized if self.crop is None else _centre(resized, *self.crop, self.rounded))


def _shortened(picture: Image.Image) -> Image.Image:
    """The middle of a strip: a picture of 20,000 × 1 pixels, resized by its shorter side, would take gigabytes."""
    longest = _LONGEST_STRIP * min(picture.size)
    return _centre(picture, min(picture.height, longest), min(picture.width, longest))


def _centre(picture: Image.Image, height: int, width: int, rounded: bool = False) -> Image.Image:
    left, top = start_of_crop(picture.width, width, rounded), start_of_crop(picture.height, height, rounded)
    return picture.crop((left, top, left + width, top + height))


def start_of_crop(size: int, crop: int, rounded: bool) -> int:
    """First row or column of a centre crop, below 0 where the image is smaller: as torchvision's if `rounded`."""
    if not rounded:
        return (size - crop) // 2
    return round((size - crop) / 2) if size > crop else -((crop - size) // 2)  # it pads the larger half behind


def paper_recipe(side: int) -> Recipe:
    """The recipe behind the published figures: `datasets.py` of the paper's own code (unilm/beit), for evaluation."""
    resize = int(side / (224 / 256)) if side < 384 else side
    return Recipe(resize, (side, side), Resampling.BICUBIC, 1 / 255, (0.5,) * 3, (0.5,) * 3, rounded=True)


def checkpoint_recipe(processor: Mapping[str, Any] | None, side: int | None) -> Recipe:
    """What a BEiT checkpoint's `preprocessor_config.json` says, for pictures of `side` pixels if that is given.

    Keys that the file leaves out have the defaults of transformers' `BeitImageProcessor`. Raises ModelError where there
    is no such file, or it asks for something that cannot be done to every picture.
    """
    if processor is None:
        raise ModelError(
            "the checkpoint has no preprocessor_config.json", "copy one of a model like it there, or --preprocess paper"
        )
    if not processor.get("do_resize", True):
        raise ModelError("the checkpoint does not resize pictures, so they have no common size")
    normalise = processor.get("do_normalize", True)
    try:
        recipe = Recipe(
            resize=_resize_of(processor.get("size", 224)),
            crop=_pair(processor.get("crop_size", 224)) if processor.get("do_center_crop", False) else None,
            resample=Resampling(processor.get("resample", Resampling.BICUBIC)),
            factor=float(processor.get("rescale_factor", 1 / 255)) if processor.get("do_rescale", True) else 1.0,
            mean=_channels(processor.get("image_mean", 0.5) if normalise else 0.0),
            std=_channels(processor.get("image_std", 0.5) if normalise else 1.0),
        )
    except (TypeError, ValueError) as error:
        raise ModelError(f"the checkpoint's preprocessor_config.json cannot be followed: {error}") from error
    if isinstance(recipe.resize, int) and recipe.crop is None:
        raise ModelError("the checkpoint resizes pictures without cropping them, so they have no common size")
    return recipe if side is None else _at(recipe, side)


def _at(recipe: Recipe, side: int) -> Recipe:
    """The same recipe for another size: what is resized keeps its proportion to what is cropped from it."""
    if recipe.crop is None:
        return replace(recipe, resize=(side, side))
    enlarged = tuple(round(side * was / crop) for was, crop in zip(recipe.scaled_to, recipe.crop, strict=True))
    resize = enlarged[0] // 2 if isinstance(recipe.resize, int) else (enlarged[0] // 2, enlarged[1] // 2)
    return replace(recipe, resize=resize, crop=(side, side))


def _resize_of(size: Any) -> tuple[int, int] | int:
    match size:
        case {"shortest_edge": int(edge), **others} if not any(others.values()):
            return edge
    return _pair(size)


def _pair(size: Any) -> tuple[int, int]:
    """(height, width) from any of the forms in which the files give it. Raises ValueError for another form."""
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
class ProcessorRecipe:
    """Turns an RGB picture into float32 pixels of `shape` (3, height, width) by a transformers image processor."""

    processor: Any
    shape: tuple[int, ...]
    dtype = "float32"
    scaled_to = None

    def __call__(self, picture: Image.Image) -> np.ndarray:
        pixels = self.processor(images=picture, return_tensors="np", input_data_format="channels_last")
        return np.asarray(pixels["pixel_values"][0], dtype=np.float32)


def processor_recipe(folder: str, side: int | None) -> ProcessorRecipe:
    """The recipe of a checkpoint that is no BEiT, from its `preprocessor_config.json`; imports transformers.

    Raises ModelError where the file is missing or two pictures of different shape would not get one size, UsageError
    where the processor cannot make pictures of `side` pixels.
    """
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(folder, backend="pil", trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(f"no image processor in `{folder}`: {first_line(error)}") from error
    if side is not None:
        _resize_processor(processor, side)
    recipe = ProcessorRecipe(processor, ())
    try:
        shape, other = (recipe(Image.new("RGB", size)).shape for size in ((640, 480), (480, 640)))
    except (AttributeError, ImportError, LookupError, TypeError, ValueError) as error:
        raise ModelError(f"the checkpoint's image processor fails: {first_line(error)}") from error
    if shape != other:
        raise ModelError("the checkpoint's image processor gives pictures no common size", "try --image-size")
    if side is not None and shape[1:] != (side, side):
        raise UsageError(f"--image-size {side}: the checkpoint's image processor makes pictures of {shape[1:]}")
    return ProcessorRecipe(processor, shape)


def _resize_processor(processor: Any, side: int) -> None:
    if not processor.do_resize:
        raise UsageError(f"--image-size {side}: the checkpoint's image processor does not resize")
    square = {"height": side, "width": side}
    if hasattr(processor, "crop_pct"):  # ConvNeXT, PoolFormer: what is resized to follows from what is cropped
        processor.size, processor.crop_size = {"shortest_edge": side}, square
    else:
        processor.size, processor.do_center_crop = square, False
