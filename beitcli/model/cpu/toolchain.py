"""The machine's C++ compiler, and the cache folder for its output."""

import os
import shutil


def compiler() -> str | None:
    """The path of the C++ compiler: the one that `CXX` names, or the first of the usual ones that is installed."""
    names = (os.environ.get("CXX") or "g++", "g++", "clang++", "c++")
    return next(filter(None, map(shutil.which, names)), None)


def cache_folder() -> str:
    """Cache folder of compiled networks, created if missing. Raises OSError where that is impossible."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = os.path.join(cache, "beit", "compiled")
    os.makedirs(folder, exist_ok=True)
    return folder
