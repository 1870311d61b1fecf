"""Options of `beit pretrain` alone: tokens, network and recipe."""

from typing import Any

import typer

from beitcli.jobs.pretraining_requests import Pretraining

_TOKENS, _NETWORK, _RECIPE, _IMAGES = "Tokens", "Network", "Recipe", "Inputs"

PRETRAINING_FLAGS: dict[type, dict[str, Any]] = {
    Pretraining: {
        "tokenizer": typer.Option(
            "--tokenizer",
            metavar="kmeans|dalle|PATH",
            help="A codebook of your images, DALL-E's encoder, or a PATH of either "
            "[default: that of --model if it has one, else kmeans].",
            rich_help_panel=_TOKENS,
        ),
        "vocab": typer.Option(
            "--vocab", metavar="N", help="Tokens of a new codebook [default: 512].", rich_help_panel=_TOKENS
        ),
        "size": typer.Option(
            "--size",
            help="Size of a new network [default: small].",
            show_default=False,
            rich_help_panel=_NETWORK,
        ),
        "model": typer.Option(
            "--model",
            "-m",
            help="Instead of --size: go on from this BEiT (alias, Hub id or folder).",
            rich_help_panel=_NETWORK,
        ),
        "revision": typer.Option(
            "--revision", metavar="REV", help="Hub commit, tag or branch of --model.", rich_help_panel=_NETWORK
        ),
        "image_size": typer.Option(
            "--image-size",
            metavar="N",
            help="Side of the images [default: 32 for tiny and small, else 224; that of --model].",
            rich_help_panel=_NETWORK,
        ),
        "patch_size": typer.Option(
            "--patch-size",
            metavar="N",
            help="Patch size of a new network [default: 4 for tiny and small, else 16].",
            rich_help_panel=_NETWORK,
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
        "accumulate": typer.Option(
            "--accumulate",
            metavar="N",
            help="Batches per optimizer step, to save memory [default: 1].",
            rich_help_panel=_RECIPE,
        ),
        "lr": typer.Option(
            "--lr", metavar="RATE", help="Peak learning rate [default: the recipe's].", rich_help_panel=_RECIPE
        ),
        "max_errors": typer.Option(
            "--max-errors",
            metavar="N",
            help="Train although up to N images cannot be read.",
            rich_help_panel=_IMAGES,
        ),
        "seed": typer.Option("--seed", metavar="N", help="Random seed.", rich_help_panel=_RECIPE),
    },
}
"""The option of every field of the request of a pre-training."""
