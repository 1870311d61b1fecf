"""Preprocessing -> transformers' image processor, which gives the same pixels."""

from transformers.models.beit.image_processing_pil_beit import BeitImageProcessorPil

from beitcli.model.preprocessing import Preprocessing


def processor_of(preprocessing: Preprocessing) -> BeitImageProcessorPil:
    return BeitImageProcessorPil(
        size={"shortest_edge": preprocessing.resize}
        if isinstance(preprocessing.resize, int)
        else _sides(preprocessing.resize),
        do_center_crop=preprocessing.crop is not None,
        crop_size=_sides(preprocessing.size),
        resample=preprocessing.resample,
        rescale_factor=preprocessing.factor,
        image_mean=list(preprocessing.mean),
        image_std=list(preprocessing.std),
    )


def _sides(size: tuple[int, int]) -> dict[str, int]:
    return {"height": size[0], "width": size[1]}
