"""Recipe -> transformers' image processor: the same pixels, for whoever loads the model."""

from transformers.models.beit.image_processing_pil_beit import BeitImageProcessorPil

from beitcli.model.recipe import Recipe


def processor_of(recipe: Recipe) -> BeitImageProcessorPil:
    return BeitImageProcessorPil(
        size={"shortest_edge": recipe.resize} if isinstance(recipe.resize, int) else _sides(recipe.resize),
        do_center_crop=recipe.crop is not None,
        crop_size=_sides(recipe.size),
        resample=recipe.resample,
        rescale_factor=recipe.factor,
        image_mean=list(recipe.mean),
        image_std=list(recipe.std),
    )


def _sides(size: tuple[int, int]) -> dict[str, int]:
    return {"height": size[0], "width": size[1]}
