"""Options of `beit train` and `beit pretrain` alone: images, tokens, network and recipe."""

from typing import Any

import typer

from beitcli.jobs.pretraining_requests import Pretraining
from beitcli.jobs.training_requests import Recipe, TrainingImages

_IMAGES, _RECIPE = "Images", "Recipe"

_ACCUMULATE = typer.Option(
    "--accumulate",
    metavar="N",
    help="Batches per optimizer step, to save memory [default: 1].",
    rich_help_panel=_RECIPE,
)
_LR = typer.Option("--lr", metavar="RATE", help="Peak learning rate [default: the recipe's].", rich_help_panel=_RECIPE)
_SEED = typer.Option("--seed", metavar="N", help="Random seed.", rich_help_panel=_RECIPE)


def _max_errors(panel: str) -> Any:
    return typer.Option(
        "--max-errors", metavar="N", help="Train although up to N images cannot be read.", rich_help_panel=panel
    )


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
        "max_errors": _max_errors(_IMAGES),
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
        "accumulate": _ACCUMULATE,
        "lr": _LR,
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
        "seed": _SEED,
    },
    Pretraining: {
        "tokenizer": typer.Option(
            "--tokenizer",
            metavar="kmeans|dalle|PATH",
            help="A codebook of your images, DALL-E's encoder, or a PATH of either "
            "[default: that of --model if it has one, else kmeans].",
            rich_help_panel="Tokens",
        ),
        "vocab": typer.Option(
            "--vocab", metavar="N", help="Tokens of a new codebook [default: 512].", rich_help_panel="Tokens"
        ),
        "size": typer.Option(
            "--size",
            help="Size of a new network [default: small].",
            show_default=False,
            rich_help_panel="Network",
        ),
        "model": typer.Option(
            "--model",
            "-m",
            help="Instead of --size: go on from this BEiT (alias, Hub id or folder).",
            rich_help_panel="Network",
        ),
        "revision": typer.Option(
            "--revision", metavar="REV", help="Hub commit, tag or branch of --model.", rich_help_panel="Network"
        ),
        "image_size": typer.Option(
            "--image-size",
            metavar="N",
            help="Side of the images [default: 32 for tiny and small, else 224; that of --model].",
            rich_help_panel="Network",
        ),
        "patch_size": typer.Option(
            "--patch-size",
            metavar="N",
            help="Patch size of a new network [default: 4 for tiny and small, else 16].",
            rich_help_panel="Network",
        ),
        "mask": typer.Option(
            "--mask",
            metavar="SHARE",
            help="Share of the patches masked at most [default: 0.38, 75 of 196].",
            rich_help_panel=_RECIPE,
        ),
        "epochs": typer.Option(
            "--epochs", metavar="N", help="Number of epochs [default: 30].", rich_help_panel=_RECIPE
        ),
        "batch_size": typer.Option(
            "--batch-size",
            "-b",
            metavar="N",
            help="Images per batch [default: 256 for tiny and small, else 64].",
            rich_help_panel=_RECIPE,
        ),
        "accumulate": _ACCUMULATE,
        "lr": _LR,
        "max_errors": _max_errors("Inputs"),
        "seed": _SEED,
    },
}
"""The option of every field of the requests of a training and of a pre-training."""
