"""Requests of pre-trainings: images without labels and the recipe as plain records, with their defaults and checks."""

import os
from dataclasses import dataclass, field
from typing import Annotated, Literal

from beitcli.errors import UsageError
from beitcli.jobs.requests import Compute, Inputs, Limits, ModelChoice
from beitcli.jobs.values import Range, check_values
from beitcli.outputs.destination import is_in
from beitcli.records import printable
from beitcli.training.work_dir import WorkDir

Size = Literal["tiny", "small", "base", "large"]

DEFAULT_VOCABULARY = 512
"""Tokens of a codebook."""

KMEANS, DALLE = "kmeans", "dalle"

_SMALL = ("tiny", "small")


@dataclass(frozen=True, slots=True)
class Pretraining:
    """Hyper-parameters of a pre-training; None for the default of the size, or of the model that is continued.

    `tokenizer` is `kmeans`, `dalle`, or a path: an earlier result, a folder of DALL-E's encoder, or its `encoder.pkl`.
    """

    tokenizer: str | None = None
    vocab: Annotated[int | None, Range(2, 65_536)] = None
    size: Size | None = None
    model: str | None = None
    revision: str | None = None
    image_size: Annotated[int | None, Range(1)] = None
    patch_size: Annotated[int | None, Range(1)] = None
    mask: Annotated[float | None, Range(0.01, 0.9)] = None
    epochs: Annotated[int | None, Range(1)] = None
    batch_size: Annotated[int | None, Range(1, 4096)] = None
    accumulate: Annotated[int | None, Range(1)] = None
    lr: Annotated[float | None, Range(1e-9, 1.0)] = None
    max_errors: Annotated[int, Range(0)] = 0
    seed: Annotated[int, Range(0)] = 0

    @property
    def new_size(self) -> Size:
        """The size of a new network."""
        return self.size or "small"

    @property
    def start(self) -> ModelChoice | None:
        """The model that is continued, if any."""
        return None if self.model is None else ModelChoice(self.model, self.revision, image_size=self.image_size)

    @property
    def new_geometry(self) -> tuple[int, int]:
        """Sides of the images and the patches of a new network."""
        image, patch = (32, 4) if self.new_size in _SMALL else (224, 16)
        return self.image_size or image, self.patch_size or patch

    def check(self) -> None:
        """Raise UsageError for values that are not allowed, or contradict each other."""
        check_values(self)
        if self.model is not None and self.size:
            raise UsageError("`model=` and `size=` exclude each other", "leave one of them out")
        if self.model is not None and self.patch_size:
            raise UsageError("`patch_size=` is for a new model", "a model that is continued keeps its patch size")
        if self.model is None and self.revision is not None:
            raise UsageError("`revision=` is for a model that is continued", "add `model=`")
        if self.vocab is not None and self.tokenizer not in (None, KMEANS):
            raise UsageError("`vocab=` is for a new codebook", "leave it out, or take `tokenizer=kmeans`")
        if self.model is None:
            image, patch = self.new_geometry
            if image % patch:
                raise UsageError(f"`image_size={image}`: it needs a multiple of {patch}", "or another `patch_size=`")


@dataclass(frozen=True, slots=True)
class PretrainingRequest:
    """All options of a pre-training; `out` and `command` are as those of a `TrainingRequest`."""

    inputs: Inputs
    out: str
    recipe: Pretraining = field(default_factory=Pretraining)
    limits: Limits = field(default_factory=Limits)
    compute: Compute = field(default_factory=Compute)
    command: str = ""
    replace: bool = False

    @property
    def work(self) -> WorkDir:
        return WorkDir(self.out.rstrip("/") or self.out, self.replace)

    def check(self) -> None:
        """Raise UsageError for values that are not allowed, or contradict each other.

        Also for an `out` that exists or is among the images; OutputError for one that cannot be written.
        """
        for part in (self.inputs, self.recipe, self.limits, self.compute):
            part.check()
        self.compute.check_for_training()
        self.work.check()
        folders = (each for each in self.inputs.inputs or () if os.path.isdir(each))
        if any(is_in(self.work.out, folder) for folder in folders):
            raise UsageError(f"`{printable(self.out)}` is in a folder of the images", "choose an `out=` beside it")
