"""Requests of trainings: labelled images and the recipe as plain records, with their defaults and checks."""

import os
import re
from dataclasses import dataclass, field
from typing import Annotated, Literal

from beitcli.errors import UsageError
from beitcli.inputs.labelled import Labelled, by_table
from beitcli.inputs.sources import Walk
from beitcli.jobs.labelling import check_no_filters
from beitcli.jobs.requests import Compute, Limits, ModelChoice
from beitcli.jobs.values import Range, check_values
from beitcli.outputs.destination import is_in
from beitcli.records import printable
from beitcli.training.data.examples import DEFAULT_VAL_SHARE, Split, in_folders, split
from beitcli.training.work_dir import WorkDir

BEST = "best"
"""The layer of a probe that validation chooses."""


@dataclass(frozen=True, slots=True)
class TrainingImages:
    """Training and validation images: a folder of class folders, or a table of paths and labels, for each of them."""

    folder: str | None = None
    labels: str | None = None
    val: str | None = None
    val_share: Annotated[float | None, Range(0.001, 0.9)] = None
    max_errors: Annotated[int, Range(0)] = 0

    def check(self, walk: Walk) -> None:
        """Raise UsageError for values that are not allowed, or contradict each other."""
        check_values(self)
        if (self.folder is None) == (self.labels is None):
            raise UsageError("name the images by a folder or by `labels=`, one of the two", "beit train ./flowers …")
        if self.val is not None and self.val_share is not None:
            raise UsageError("`val_share=` and `val=` exclude each other", "leave one of them out")
        if self.folder is None and not (self.val and os.path.isdir(self.val)):
            check_no_filters(walk)

    def check_place(self, out: str) -> None:
        """Raise UsageError for an output inside a folder of the images, where the next run would find it."""
        folders = (folder for folder in (self.folder, self.val) if folder is not None and os.path.isdir(folder))
        if any(is_in(out, folder) for folder in folders):
            raise UsageError(f"`{printable(out)}` is in a folder of the images", "choose an `out=` beside it")

    def split(self, walk: Walk, seed: int) -> Split:
        """The examples, some of them held out. Raises UsageError if they do not form classes."""
        return split(self._training(walk), self._validation(walk), self.val_share or DEFAULT_VAL_SHARE, seed)

    def whole(self, walk: Walk) -> Split:
        """The examples, none of them held out yet. Raises UsageError if they do not form classes."""
        return split(self._training(walk), self._validation(walk) or (), DEFAULT_VAL_SHARE, 0)

    def _training(self, walk: Walk) -> list[Labelled]:
        return in_folders(self.folder, walk) if self.folder is not None else by_table(self.labels or "")

    def _validation(self, walk: Walk) -> list[Labelled] | None:
        if self.val is None:
            return None
        return by_table(self.val) if os.path.isfile(self.val) else in_folders(self.val, walk)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Hyper-parameters of a training; None for the default: a linear probe, or fine-tuning, or a new model."""

    pool: Literal["mean", "cls"] | None = None
    layer: str | None = None
    from_scratch: Literal["tiny", "small"] | None = None
    finetune: bool = False
    patch_size: Annotated[int | None, Range(1)] = None
    epochs: Annotated[int | None, Range(1)] = None
    batch_size: Annotated[int | None, Range(1, 4096)] = None
    accumulate: Annotated[int | None, Range(1)] = None
    lr: Annotated[float | None, Range(1e-9, 1.0)] = None
    checkpoint_gradients: bool = False
    refit_on_all: bool = False
    seed: Annotated[int, Range(0)] = 0

    @property
    def is_probe(self) -> bool:
        return not (self.from_scratch or self.finetune)

    def check(self, image_size: int) -> None:
        """Raise UsageError for values that are not allowed, or contradict each other."""
        check_values(self)
        if self.from_scratch and self.finetune:
            raise UsageError("`finetune=True` and `from_scratch=` exclude each other", "leave one of them out")
        if self.is_probe:
            self._check_probe()
        else:
            self._check_layers()
        if self.finetune and self.patch_size:
            raise UsageError("`patch_size=` is for a new model", "a fine-tuned model keeps its patch size")
        if self.from_scratch and self.checkpoint_gradients:
            raise UsageError("`checkpoint_gradients=True` is for `finetune=True`", "`accumulate=` saves memory, too")
        if self.from_scratch and image_size % (self.patch_size or 4):
            raise UsageError(f"`image_size={image_size}`: it needs a multiple of {self.patch_size or 4}")

    def _check_layers(self) -> None:
        given = "pool=" if self.pool else "layer=" if self.layer else None
        given = given or ("refit_on_all=True" if self.refit_on_all else None)
        if given:
            hint = "leave it out, or leave `finetune=True` and `from_scratch=` out"
            raise UsageError(f"`{given}` is for a linear probe", hint)

    @property
    def probed(self) -> int | Literal["all"] | None:
        """The layer, from 1, whose features a probe is fitted to; all where the best is to be chosen."""
        if self.layer is None:
            return None
        return "all" if self.layer == BEST else int(self.layer)

    def _check_probe(self) -> None:
        if self.layer is not None and self.layer != BEST and not re.fullmatch(r"[1-9][0-9]{0,3}", self.layer):
            raise UsageError(f"`layer={self.layer}`: no layer", "a number from 1, or `layer=best`")
        others = ("patch_size", "epochs", "accumulate", "lr", "checkpoint_gradients")
        given = next((name for name in others if getattr(self, name)), None)
        if given:
            hint = "add `finetune=True` or `from_scratch=`, or leave it out"
            raise UsageError(f"`{given}=`: a linear probe has none", hint)


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """All options of a training; `out` is the folder of the model, and `command` goes into its card.

    With `replace`, `out` may hold an earlier model, which is there until the new one takes its place.
    """

    images: TrainingImages
    out: str
    recipe: Recipe = field(default_factory=Recipe)
    walk: Walk = field(default_factory=Walk)
    limits: Limits = field(default_factory=Limits)
    model: ModelChoice = field(default_factory=ModelChoice)
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
        self.images.check(self.walk)
        self.recipe.check(self.model.image_size or 32)
        for part in (self.limits, self.model, self.compute):
            part.check()
        self.compute.check_for_training()
        if self.compute.has_workers and not self.recipe.is_probe:
            raise UsageError(
                "a training of all layers runs on one device", "name it by `device=`; a probe takes several"
            )
        self.work.check()
        self.images.check_place(self.work.out)
