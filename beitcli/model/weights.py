"""Files of weights -> tensors by their names in a saved classifier."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from typing import TYPE_CHECKING, Any

from beitcli.errors import ModelError, first_line

if TYPE_CHECKING:
    from torch import Tensor

_MAX_MAPPED = 64_000_000
"""Bytes of tensors after which their mapping is closed; all of a large model's would be gigabytes."""

_SMALL = 4_000_000
"""Bytes up to which a tensor is copied: a network keeps norms and biases as they are, and with them the mapping."""

_POINTER = b"version https://git-lfs"

_IN_A_LAYER = {
    "attention.q_proj.": "attention.attention.query.",
    "attention.k_proj.": "attention.attention.key.",
    "attention.v_proj.": "attention.attention.value.",
    "attention.o_proj.": "attention.output.dense.",
    "mlp.fc1.": "intermediate.dense.",
    "mlp.fc2.": "output.dense.",
    "relative_position_bias.": "attention.attention.relative_position_bias.",
}
"""Parameters of a BEiT's layer as transformers holds them in memory -> as its `save_pretrained` names them."""

_LAYER = re.compile(r"(beit\.|)layers\.(\d+)\.")
_SHARED_BIAS = re.compile(r"^(beit\.|)shared_position_bias\.")


def read_tensors(paths: Sequence[str], is_beit: bool) -> "Mapping[str, Tensor]":
    """Every tensor of the files; a BEiT's by its name in a saved classifier, however it was saved.

    Raises ModelError if unreadable.
    """
    if paths[0].endswith(".safetensors"):
        tensors: Mapping[str, Tensor] = _MappedTensors(paths)
    else:
        tensors = dict(chain.from_iterable(_unpickled(path).items() for path in paths))
    return _RenamedTensors(tensors) if is_beit else tensors


def _saved_name(name: str) -> str:
    """Name of a BEiT's parameter as `save_pretrained` writes it, from that name or the one in memory."""
    layer = _LAYER.match(name)
    if layer is None:
        return _SHARED_BIAS.sub(r"\1encoder.relative_position_bias.", name, count=1)
    part = name[layer.end() :]
    for in_memory, saved in _IN_A_LAYER.items():
        if part.startswith(in_memory):
            part = saved + part.removeprefix(in_memory)
    return f"{layer[1]}encoder.layer.{layer[2]}.{part}"


def check_is_no_pointer(path: str) -> None:
    """Raise ModelError for a Git LFS pointer in place of a file of weights."""
    with suppress(OSError), open(path, "rb") as stream:  # errors are raised when it is read
        if stream.read(len(_POINTER)) == _POINTER:
            raise ModelError(
                f"`{path}` is a Git LFS pointer, not the weights themselves", "fetch them there by `git lfs pull`"
            )


def is_finite(tensor: "Tensor") -> bool:
    """True for a tensor of finite numbers only: their sum is finite too, unless they are huge."""
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def not_finite(name: str) -> ModelError:
    """Error for weights with infinities or NaN."""
    return ModelError(
        f"the weights are not finite: `{name}` has infinities or NaN", "training or conversion broke them"
    )


class _MappedTensors(Mapping[str, "Tensor"]):
    """The tensors of safetensors files, remapped now and then to release the memory of what was read."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._files: dict[str, Any] = {}
        self._bytes_read = 0
        self._path_of = {name: path for path in paths for name in self._file(path).keys()}  # noqa: SIM118  # no mapping

    def __getitem__(self, name: str) -> "Tensor":
        path = self._path_of[name]
        with weight_errors(path):
            tensor: Tensor = self._file(path).get_tensor(name)
            if tensor.nbytes <= _SMALL:
                tensor = tensor.clone()
        self._bytes_read += tensor.nbytes
        if self._bytes_read > _MAX_MAPPED:
            self._files.clear()
            self._bytes_read = 0
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._path_of)

    def __len__(self) -> int:
        return len(self._path_of)

    def _file(self, path: str) -> Any:
        from safetensors import safe_open

        if path not in self._files:
            with weight_errors(path):
                self._files[path] = safe_open(path, "pt")
        return self._files[path]


class _RenamedTensors(Mapping[str, "Tensor"]):
    """The tensors of a BEiT, a classifier or an encoder on its own, by their names in a saved classifier."""

    def __init__(self, tensors: "Mapping[str, Tensor]") -> None:
        self._tensors = tensors
        root = "" if any(name.startswith("beit.") for name in tensors) else "beit."
        self._names = {root + _saved_name(name): name for name in tensors}

    def __getitem__(self, name: str) -> "Tensor":
        return self._tensors[self._names[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _unpickled(path: str) -> "dict[str, Tensor]":
    import torch

    with weight_errors(path):
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    if not (isinstance(loaded, dict) and all(isinstance(value, torch.Tensor) for value in loaded.values())):
        raise ModelError(f"cannot read the weights `{path}`: not a mapping of names to tensors")
    return loaded


@contextmanager
def weight_errors(path: str) -> Iterator[None]:
    """Turn errors of reading a file of weights into a ModelError."""
    import pickle

    from safetensors import SafetensorError

    try:
        yield
    except pickle.UnpicklingError as error:  # torch's own message advises to run the code inside
        hint = "convert it to model.safetensors, if you trust it"
        raise ModelError(f"cannot read the weights `{path}`: broken, or more than plain tensors", hint) from error
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise ModelError(f"cannot read the weights `{path}`: {first_line(error)}") from error
