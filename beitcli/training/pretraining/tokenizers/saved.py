"""Files of tokenizers -> the tokenizers that wrote them."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from safetensors import safe_open
from torch import Tensor

from beitcli.errors import UsageError
from beitcli.model.weights import is_finite, weight_errors
from beitcli.records import printable
from beitcli.training.pretraining.tokenizers import dalle, kmeans
from beitcli.training.pretraining.tokenizers.protocol import FACTS, Tokenizer

_KINDS: dict[str, Callable[[Mapping[str, Tensor], Mapping[str, Any]], Tokenizer]] = {
    kmeans.KIND: kmeans.codebook_from,
    dalle.KIND: dalle.encoder_from,
}


def open_tokenizer(path: str) -> Tokenizer:
    """The tokenizer of a file that one has written. Raises UsageError for another file, ModelError if unreadable."""
    with weight_errors(path), safe_open(path, "pt") as file:
        text = (file.metadata() or {}).get(FACTS, "{}")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    try:
        facts = json.loads(text)
        if facts["kind"] in _KINDS and all(map(is_finite, tensors.values())):
            return _KINDS[facts["kind"]](tensors, facts)
    except (LookupError, TypeError, ValueError):
        pass
    raise UsageError(f"`{printable(path)}` is no tokenizer of a pre-training", "`tokenizer=kmeans` fits a new one")
