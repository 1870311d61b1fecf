"""The card of a pre-trained model: data, recipe, and how well it predicts tokens that it does not see."""

import platform
from dataclasses import dataclass
from importlib.metadata import version

from beitcli import __version__
from beitcli.records import printable
from beitcli.training.pretraining.held_out import HeldOutScores


@dataclass(frozen=True, slots=True)
class PretrainingFacts:
    """Content of the card; `tokenizer` is its description, and `overlap` held-out images are training images, too."""

    command: str
    description: str
    tokenizer: str
    vocabulary: int
    trained_on: int
    held_out: int
    overlap: int
    scores: HeldOutScores
    seed: int
    seconds: float


def pretraining_card(name: str, facts: PretrainingFacts) -> str:
    """The text of a README.md as the Hub reads it."""
    scores = facts.scores
    overlap = f", of which {facts.overlap} are training images, too" if facts.overlap else ""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "scikit-learn"))
    return "\n".join(
        [
            "---",
            "library_name: transformers",
            "pipeline_tag: image-feature-extraction",
            "tags: [beit, masked-image-modeling]",
            "---",
            f"# {printable(name)}",
            "",
            "Pre-trained without labels: it predicts the visual tokens of masked patches, and has no classes yet.",
            "",
            f"| on masked patches of {facts.held_out} images held out{overlap} | predicted | without an image |",
            "|---|---|---|",
            f"| loss (nats) | {scores.loss:.3f} | {scores.entropy:.3f}, the entropy of the tokens |",
            f"| accuracy | {100 * scores.accuracy:.2f} % | {100 * scores.most_frequent:.2f} %, the most frequent |",
            "",
            f"Tokens: {facts.tokenizer}. {scores.used} of {facts.vocabulary} occur in these patches.",
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
