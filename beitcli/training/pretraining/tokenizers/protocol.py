"""Interface of a tokenizer: views of images -> one visual token for each patch."""

import hashlib
import json
from collections.abc import Mapping
from typing import Protocol

from safetensors.torch import save_file
from torch import Tensor

TOKENIZER = "tokenizer.safetensors"
"""Name of the file, in the folder of a pre-trained model, by which another pre-training has the same tokens."""


FACTS = "tokenizer"
"""Key of the file's metadata; with one key alone, equal tokenizers have equal files."""


class Tokenizer(Protocol):
    """A frozen map of images to tokens, which are numbers from 0."""

    @property
    def vocabulary(self) -> int:
        """The number of tokens."""
        ...

    @property
    def digest(self) -> str:
        """16 hexadecimal digits, which differ between tokenizers with other tokens."""
        ...

    @property
    def grid(self) -> int | None:
        """The number of patches in a row and in a column of the images it is for; None for any."""
        ...

    @property
    def pixels_a_patch(self) -> int:
        """Side of a patch in the views, in pixels."""
        ...

    @property
    def description(self) -> str:
        """Its sentence in the model card."""
        ...

    def to(self, device: str) -> "Tokenizer":
        """The tokenizer on this device."""
        ...

    def __call__(self, views: Tensor) -> Tensor:
        """The tokens (n, patches) of views (n, 3, side, side) in [0, 1], in the order of rows."""
        ...

    def save(self, path: str) -> None:
        """Write what `open_tokenizer` reads."""
        ...


def digest_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """16 hexadecimal digits of the names, shapes and values."""
    content = hashlib.sha256()
    for name in sorted(tensors):
        content.update(f"{name} {tuple(tensors[name].shape)}".encode())
        content.update(tensors[name].cpu().contiguous().numpy().data)
    return content.hexdigest()[:16]


def save_tokenizer(path: str, tensors: dict[str, Tensor], **facts: object) -> None:
    """Write a file of these tensors and facts, one of which is the `kind`."""
    save_file(tensors, path, {FACTS: json.dumps(facts, sort_keys=True)})
