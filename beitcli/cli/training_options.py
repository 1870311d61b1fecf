"""Options of `beit train` alone: training images and recipe."""

from typing import Any

import typer

from beitcli.jobs.training_requests import Recipe, TrainingImages

_IMAGES, _RECIPE = "Images", "Recipe"

TRAINING_FLAGS: dict[type, dict[str, Any]] = {
    TrainingImages: {
        "folder": typer.Argument(
            metavar="DIR", help="A folder that holds a folder of images for each class.", show_default=False
        ),
        "labels": typer.Option(
            "--labels",
            metavar="FILE",
            help="Instead of DIR: a CSV or TSV of paths and labels.",
            rich_help_panel=_IMAGES,
        ),
        "val": typer.Option(
            "--val",
            metavar="DIR|FILE",
            help="Validation images, a folder or table like the training images [default: some are held out].",
            rich_help_panel=_IMAGES,
        ),
        "val_share": typer.Option(
            "--val-share",
            metavar="SHARE",
            help="Share of each class held out without --val [default: 0.1; a probe of few images cross-validates].",
            rich_help_panel=_IMAGES,
        ),
        "max_errors": typer.Option(
            "--max-errors",
            metavar="N",
            help="Train although up to N images cannot be read.",
            rich_help_panel=_IMAGES,
        ),
    },
    Recipe: {
        "pool": typer.Option(
            "--pool",
            help="Features of a probe: the mean of the final patch states, or the first state [default: mean].",
            show_default=False,
            rich_help_panel=_RECIPE,
        ),
        "layer": typer.Option(
            "--layer",
            metavar="N|best",
            help="Features of a probe: those behind layer N, from 1, or the best in validation [default: the last].",
            rich_help_panel=_RECIPE,
        ),
        "from_scratch": typer.Option(
            "--from-scratch",
            help="Train a new model of this size, for small images.",
            show_default=False,
            rich_help_panel=_RECIPE,
        ),
        "finetune": typer.Option(
            "--finetune", help="Fine-tune all layers of --model.", show_default=False, rich_help_panel=_RECIPE
        ),
        "patch_size": typer.Option(
            "--patch-size",
            metavar="N",
            help="Patch size of a new model [default: 4].",
            rich_help_panel=_RECIPE,
        ),
        "epochs": typer.Option(
            "--epochs",
            metavar="N",
            help="Number of epochs [default: 30].",
            rich_help_panel=_RECIPE,
        ),
        "batch_size": typer.Option(
            "--batch-size",
            "-b",
            metavar="N",
            help="Images per batch [default: 256 from scratch, 32 to fine-tune, for a probe as `classify`].",
            rich_help_panel=_RECIPE,
        ),
        "accumulate": typer.Option(
            "--accumulate",
            metavar="N",
            help="Batches per optimizer step, to save memory [default: 1].",
            rich_help_panel=_RECIPE,
        ),
        "lr": typer.Option(
            "--lr",
            metavar="RATE",
            help="Peak learning rate [default: the recipe's].",
            rich_help_panel=_RECIPE,
        ),
        "checkpoint_gradients": typer.Option(
            "--checkpoint-gradients",
            help="Fine-tune with less memory in more time.",
            show_default=False,
            rich_help_panel=_RECIPE,
        ),
        "refit_on_all": typer.Option(
            "--refit-on-all",
            help="Fit a validated probe again to all images, those held out too.",
            show_default=False,
            rich_help_panel=_RECIPE,
        ),
        "seed": typer.Option("--seed", metavar="N", help="Random seed.", rich_help_panel=_RECIPE),
    },
}
"""The option of every field of the requests of a training."""
