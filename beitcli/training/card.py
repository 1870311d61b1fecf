"""The model card: what a trained model is made of, and how good it is."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import transformers

from beitcli import __version__


@dataclass(frozen=True, slots=True)
class Facts:
    """What there is to say of a training; `top1` and `top5` are shares of the `validated` pictures."""

    command: str
    origin: str
    recipe: str
    classes: Sequence[str]
    learnt_from: int
    validated: int
    top1: float
    top5: float
    seed: int
    seconds: float


def model_card(name: str, facts: Facts) -> str:
    """The text of a README.md as the Hub reads it."""
    shown = ", ".join(facts.classes[:100]) + (", …" if len(facts.classes) > 100 else "")
    return f"""---
library_name: transformers
pipeline_tag: image-classification
tags: [beit, image-classification]
---
# {name}

{facts.origin}

It tells {len(facts.classes)} classes apart: {shown}.

| on {facts.validated} pictures that it has not learnt from | |
|---|---|
| top-1 | {100 * facts.top1:.2f} % |
| top-5 | {100 * facts.top5:.2f} % |

Learnt from {facts.learnt_from} pictures, in {facts.seconds / 60:.1f} minutes since this process was started, by

    {facts.command}

{facts.recipe}
Seed {facts.seed}. beitcli {__version__}, torch {torch.__version__}, transformers {transformers.__version__}, Python {platform.python_version()}.
"""
