"""The model card: what a trained model is made of, and how good it is."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

from beitcli import __version__
from beitcli.records import printable

UNSEEN = "that it has not learnt from"
SEEN = "of which it has learnt from {}, too"


@dataclass(frozen=True, slots=True)
class Facts:
    """What there is to say of a training; `ranks` are the places, from 0, of the right classes in the validation.

    `held_out` says how far the model knows the validated pictures.
    """

    command: str
    recipe: str
    classes: Sequence[str]
    learnt_from: int
    ranks: Sequence[int]
    held_out: str
    seed: int
    seconds: float

    def right(self, among: int) -> float:
        """The share of the validated pictures whose class is among so many of the best answers."""
        return sum(rank < among for rank in self.ranks) / len(self.ranks)


def model_card(name: str, facts: Facts) -> str:
    """The text of a README.md as the Hub reads it."""
    shown = ", ".join(map(printable, facts.classes[:100])) + (", …" if len(facts.classes) > 100 else "")
    rows = [f"| top-{k} | {100 * facts.right(k):.2f} % |" for k in (1, 5) if k < len(facts.classes)]
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "scikit-learn"))
    return "\n".join(
        [
            "---",
            "library_name: transformers",
            "pipeline_tag: image-classification",
            "tags: [beit, image-classification]",
            "---",
            f"# {printable(name)}",
            "",
            f"Tells {len(facts.classes)} classes apart: {shown}.",
            "",
            f"| on {len(facts.ranks)} pictures {facts.held_out} | |",
            "|---|---|",
            *rows,
            "",
            facts.recipe,
            "",
            f"It has learnt from {facts.learnt_from} pictures in {facts.seconds / 60:.1f} minutes, by",
            "",
            f"    {printable(facts.command)}",
            "",
            f"Seed {facts.seed}. beitcli {__version__}, {versions}, Python {platform.python_version()}.",
            "",
        ]
    )
