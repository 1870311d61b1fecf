"""The machine's C++ compiler, and the place in the user's cache for what it makes."""

import os
import shutil


def compiler() -> str | None:
    """The path of the C++ compiler: the one that `CXX` names, or else the first of the usual ones that is there."""
    names = (os.environ.get("CXX") or "g++", "g++", "clang++", "c++")
    return next(filter(None, map(shutil.which, names)), None)


def cache_folder() -> str:
    """Where compiled networks are kept, made if it is not there. Raises OSError where that cannot be."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = os.path.join(cache, "beit", "compiled")
    os.makedirs(folder, exist_ok=True)
    return folder
