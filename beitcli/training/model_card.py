"""The model card: data, training and accuracy of a trained model."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

from beitcli import __version__
from beitcli.records import printable

UNSEEN = "that it was not trained on"
SEEN = "of which {} are training images, too"


@dataclass(frozen=True, slots=True)
class Facts:
    """Content of a model card; `ranks` are the ranks, from 0, of the true classes of the validation images.

    `held_out` describes the validation images, and whether the model was trained on them.
    """

    command: str
    description: str
    classes: Sequence[str]
    trained_on: int
    ranks: Sequence[int]
    held_out: str
    seed: int
    seconds: float

    def accuracy(self, among: int) -> float:
        """Top-k accuracy on the validation images, k being `among`."""
        return sum(rank < among for rank in self.ranks) / len(self.ranks)


def model_card(name: str, facts: Facts) -> str:
    """The text of a README.md as the Hub reads it."""
    shown = ", ".join(map(printable, facts.classes[:100])) + (", …" if len(facts.classes) > 100 else "")
    rows = [f"| top-{k} | {100 * facts.accuracy(k):.2f} % |" for k in (1, 5) if k < len(facts.classes)]
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
            f"Classifies images into {len(facts.classes)} classes: {shown}.",
            "",
            f"| on {len(facts.ranks)} images {facts.held_out} | |",
            "|---|---|",
            *rows,
            "",
            facts.description,
            "",
            f"It was trained on {facts.trained_on} images in {facts.seconds / 60:.1f} minutes, by",
            "",
            f"    {printable(facts.command)}",
            "",
            f"Seed {facts.seed}. beitcli {__version__}, {versions}, Python {platform.python_version()}.",
            "",
        ]
    )
