"""Options of `beit train` alone: training images and recipe."""

import os
from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from beitcli.cli.options import check_no_walk_options
from beitcli.errors import UsageError
from beitcli.inputs.labelled import Labelled, by_table
from beitcli.inputs.sources import Walk
from beitcli.outputs.destination import is_in
from beitcli.records import printable
from beitcli.training.data.examples import DEFAULT_VAL_SHARE, Split, in_folders, split

_IMAGES, _RECIPE = "Images", "Recipe"


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """Training and validation images."""

    folder: Annotated[
        str | None,
        typer.Argument(
            metavar="DIR", help="A folder that holds a folder of images for each class.", show_default=False
        ),
    ] = None
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels",
            metavar="FILE",
            help="Instead of DIR: a CSV or TSV of paths and labels.",
            rich_help_panel=_IMAGES,
        ),
    ] = None
    val: Annotated[
        str | None,
        typer.Option(
            "--val",
            metavar="DIR|FILE",
            help="Validation images, a folder or table like the training images [default: some are held out].",
            rich_help_panel=_IMAGES,
        ),
    ] = None
    val_share: Annotated[
        float | None,
        typer.Option(
            "--val-share",
            metavar="SHARE",
            min=0.001,
            max=0.9,
            help="Share of each class held out without --val [default: 0.1; a probe of few images cross-validates].",
            rich_help_panel=_IMAGES,
        ),
    ] = None
    max_errors: Annotated[
        int,
        typer.Option(
            "--max-errors",
            metavar="N",
            min=0,
            help="Train although up to N images cannot be read.",
            rich_help_panel=_IMAGES,
        ),
    ] = 0

    def split(self, walk: Walk, seed: int) -> Split:
        """The examples, some of them held out. Raises UsageError if they do not form classes."""
        return split(self._labelled(walk), self._validation(walk), self.val_share or DEFAULT_VAL_SHARE, seed)

    def whole(self, walk: Walk) -> Split:
        """The examples, none of them held out yet. Raises UsageError if they do not form classes."""
        return split(self._labelled(walk), self._validation(walk) or (), DEFAULT_VAL_SHARE, 0)

    def check(self, walk: Walk) -> None:
        """Raises UsageError for options that contradict each other."""
        if (self.folder is None) == (self.labels is None):
            raise UsageError("name the images by a folder or by --labels, one of the two", "beit train ./flowers …")
        if self.val is not None and self.val_share is not None:
            raise UsageError("--val-share and --val exclude each other", "leave one of them out")
        if self.folder is None and not (self.val and os.path.isdir(self.val)):
            check_no_walk_options(walk)

    def check_place(self, out: str) -> None:
        """Raises UsageError for an output inside a folder of the images, where the next run would find it."""
        folders = (folder for folder in (self.folder, self.val) if folder is not None and os.path.isdir(folder))
        if any(is_in(out, folder) for folder in folders):
            raise UsageError(f"`{printable(out)}` is in a folder of the images", "choose an --out beside it")

    def _labelled(self, walk: Walk) -> list[Labelled]:
        return in_folders(self.folder, walk) if self.folder is not None else by_table(self.labels or "")

    def _validation(self, walk: Walk) -> list[Labelled] | None:
        if self.val is None:
            return None
        return by_table(self.val) if os.path.isfile(self.val) else in_folders(self.val, walk)


@dataclass(frozen=True, slots=True)
class RecipeOptions:
    """Hyper-parameters of a training; None for the recipe's default."""

    pool: Annotated[
        Literal["mean", "cls"] | None,
        typer.Option(
            "--pool",
            help="Features of a probe: the mean of the final patch states, or the first state [default: mean].",
            show_default=False,
            rich_help_panel=_RECIPE,
        ),
    ] = None
    from_scratch: Annotated[
        Literal["tiny", "small"] | None,
        typer.Option(
            "--from-scratch",
            help="Train a new model of this size, for small images.",
            show_default=False,
            rich_help_panel=_RECIPE,
        ),
    ] = None
    finetune: Annotated[
        bool,
        typer.Option(
            "--finetune", help="Fine-tune all layers of --model.", show_default=False, rich_help_panel=_RECIPE
        ),
    ] = False
    patch_size: Annotated[
        int | None,
        typer.Option(
            "--patch-size",
            metavar="N",
            min=1,
            help="Patch size of a new model [default: 4].",
            rich_help_panel=_RECIPE,
        ),
    ] = None
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            metavar="N",
            min=1,
            help="Number of epochs [default: 30].",
            rich_help_panel=_RECIPE,
        ),
    ] = None
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            "-b",
            metavar="N",
            min=1,
            max=4096,
            help="Images per batch [default: 256 from scratch, 32 to fine-tune, for a probe as `classify`].",
            rich_help_panel=_RECIPE,
        ),
    ] = None
    accumulate: Annotated[
        int | None,
        typer.Option(
            "--accumulate",
            metavar="N",
            min=1,
            help="Batches per optimizer step, to save memory [default: 1].",
            rich_help_panel=_RECIPE,
        ),
    ] = None
    lr: Annotated[
        float | None,
        typer.Option(
            "--lr",
            metavar="RATE",
            min=1e-9,
            max=1.0,
            help="Peak learning rate [default: the recipe's].",
            rich_help_panel=_RECIPE,
        ),
    ] = None
    checkpoint_gradients: Annotated[
        bool,
        typer.Option(
            "--checkpoint-gradients",
            help="Fine-tune with less memory in more time.",
            show_default=False,
            rich_help_panel=_RECIPE,
        ),
    ] = False
    seed: Annotated[
        int,
        typer.Option("--seed", metavar="N", min=0, help="Random seed.", rich_help_panel=_RECIPE),
    ] = 0

    @property
    def is_probe(self) -> bool:
        return not (self.from_scratch or self.finetune)

    def check(self, image_size: int) -> None:
        """Raises UsageError for options that contradict each other."""
        if self.from_scratch and self.finetune:
            raise UsageError("--finetune and --from-scratch exclude each other", "leave one of them out")
        if self.is_probe:
            self._check_probe()
        elif self.pool:
            raise UsageError("--pool is for a linear probe", "leave it out, or leave --finetune and --from-scratch out")
        if self.finetune and self.patch_size:
            raise UsageError("--patch-size is for a new model", "a fine-tuned model keeps its patch size")
        if self.from_scratch and self.checkpoint_gradients:
            raise UsageError("--checkpoint-gradients is for --finetune", "--accumulate saves memory, too")
        if self.from_scratch and image_size % (self.patch_size or 4):
            raise UsageError(f"--image-size {image_size}: it needs a multiple of {self.patch_size or 4}")

    def _check_probe(self) -> None:
        others = ("patch_size", "epochs", "accumulate", "lr", "checkpoint_gradients")
        given = next((name for name in others if getattr(self, name)), None)
        if given:
            option = f"--{given.replace('_', '-')}"
            raise UsageError(f"{option}: a linear probe has none", "add --finetune or --from-scratch, or leave it out")
