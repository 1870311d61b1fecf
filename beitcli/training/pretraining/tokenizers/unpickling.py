"""Pickled torch modules -> their tensors by name, with no class of the pickle's and no code of its own."""

import io
import pickle
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch._utils import _rebuild_parameter, _rebuild_tensor_v2

_REAL = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("torch", "device"): torch.device,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch", "FloatStorage"): torch.FloatStorage,
    ("torch", "HalfStorage"): torch.HalfStorage,
}
"""The only functions and classes that a pickle gets; none of them runs anything of the pickle's."""

_INERT = ("dall_e.", "torch.nn.modules.")
"""Beginnings of the modules whose classes become inert ones."""


class Inert:
    """An object of a class that is not loaded: its attributes, and nothing that runs."""

    dump_patches = False  # torch reads it; True would write files
    path: ClassVar[str] = ""

    def __new__(cls, *_: object, **__: object) -> "Inert":
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None: ...

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.__dict__.update({str(name): value for name, value in state.items()})


class _Unpickler(pickle.Unpickler):
    """An unpickler for which only those names exist."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _REAL:
            return _REAL[module, name]
        if f"{module}.".startswith(_INERT) and name.isidentifier():
            return type(name, (Inert,), {"path": f"{module}.{name}"})
        raise pickle.UnpicklingError(f"`{module}.{name}` is more than a module's tensors")


def _load(stream: Any, **settings: Any) -> Any:
    return _Unpickler(stream, **settings).load()


_PICKLE = SimpleNamespace(__name__="inert", Unpickler=_Unpickler, load=_load)
"""That `torch.load` reads all pickles of a file by, in the format of today and in that before 2020."""


def load_inert(path: str) -> Inert:
    """The root of the module that `torch.save` wrote.

    Raises pickle.UnpicklingError where the file holds anything else; nothing in it has run by then.
    """
    with open(path, "rb") as file:
        stream = io.BytesIO(file.read())  # from a file itself, torch would unpack a tar
    if zipfile.is_zipfile(stream) and any(
        name.endswith("constants.pkl") for name in zipfile.ZipFile(stream).namelist()
    ):
        raise pickle.UnpicklingError("a TorchScript archive, which holds code")
    stream.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sources that have changed, and old storages
        root = torch.load(stream, map_location="cpu", pickle_module=_PICKLE, weights_only=False)
    if not isinstance(root, Inert):
        raise pickle.UnpicklingError(f"a {type(root).__name__}, not a module")
    return root


def tensors_of(module: Inert, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """The parameters of a module and of those in it, by name."""
    for name, value in getattr(module, "_parameters", {}).items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value.detach()
    for name, child in getattr(module, "_modules", {}).items():
        if isinstance(child, Inert):
            yield from tensors_of(child, f"{prefix}{name}.")
