"""beit: classify images in bulk with BEiT vision transformers.

The names below are loaded when they are first used: `import beitcli` alone imports no torch.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from beitcli.api import Classifier, Embedder, classify, embed
    from beitcli.errors import BeitError
    from beitcli.records import Embedding, Failure, Prediction

__version__ = "0.1.0"

__all__ = ["BeitError", "Classifier", "Embedder", "Embedding", "Failure", "Prediction", "classify", "embed"]

_MODULES = {"BeitError": "errors", "Embedding": "records", "Failure": "records", "Prediction": "records"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
