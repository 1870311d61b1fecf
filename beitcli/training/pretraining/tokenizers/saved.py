"""Files of tokenizers -> the tokenizers that wrote them."""

from collections.abc import Callable, Mapping

from safetensors import safe_open
from torch import Tensor

from beitcli.errors import UsageError
from beitcli.model.weights import is_finite, weight_errors
from beitcli.records import printable
from beitcli.training.pretraining.tokenizers import dalle, kmeans
from beitcli.training.pretraining.tokenizers.protocol import Tokenizer

_KINDS: dict[str, Callable[[Mapping[str, Tensor], Mapping[str, str]], Tokenizer]] = {
    kmeans.KIND: kmeans.codebook_from,
    dalle.KIND: dalle.encoder_from,
}


def open_tokenizer(path: str) -> Tokenizer:
    """The tokenizer of a file that one has written. Raises UsageError for another file, ModelError if unreadable."""
    with weight_errors(path), safe_open(path, "pt") as file:
        metadata = dict(file.metadata() or {})
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    kind = _KINDS.get(metadata.get("kind", ""))
    try:
        if kind and all(map(is_finite, tensors.values())):
            return kind(tensors, metadata)
    except (LookupError, ValueError):
        pass
    raise UsageError(f"`{printable(path)}` is no tokenizer of a pre-training", "`tokenizer=kmeans` fits a new one")
