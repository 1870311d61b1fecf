"""The model card: data, training and accuracy of a trained model."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

from beitcli import __version__
from beitcli.records import printable
from beitcli.training.validation import ValidatedImage

UNSEEN = "that it was not trained on"
SEEN = "of which {} are training images, too"
AS_EVALUATED = "The predictions are those of `beit eval` with this model, in {}."


@dataclass(frozen=True, slots=True)
class Facts:
    """Content of a model card.

    `held_out` describes the validated images, and whether the model was trained on them, `measured` the computation of
    their predictions. `ambiguous` images stand in several classes. A `refitted` model has learnt from the validated
    images, too, after that.
    """

    command: str
    description: str
    classes: Sequence[str]
    trained_on: int
    validated: Sequence[ValidatedImage]
    held_out: str
    measured: str
    ambiguous: int
    seed: int
    seconds: float
    refitted: bool = False

    def accuracy(self, among: int) -> float:
        """Top-k accuracy on the validation images, k being `among`."""
        return sum(each.rank < among for each in self.validated) / len(self.validated)


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
            f"| on {len(facts.validated)} images {facts.held_out} | |",
            "|---|---|",
            *rows,
            "",
            f"{facts.measured} `validation.csv` has the prediction for each image.",
            "",
            facts.description,
            "",
            *([f"{facts.ambiguous} images are, byte for byte, in two classes or more.", ""] if facts.ambiguous else []),
            f"It was trained on {facts.trained_on} images in {facts.seconds / 60:.1f} minutes, by",
            "",
            f"    {printable(facts.command)}",
            "",
            f"Seed {facts.seed}. beitcli {__version__}, {versions}, Python {platform.python_version()}.",
            "",
        ]
    )
