"""Versions of what decides the results of a worker."""

import platform
from importlib.metadata import PackageNotFoundError, version

from beitcli import __version__

_COMPARED = ("torch", "Pillow", "numpy")


def versions() -> dict[str, str]:
    """Versions of beit, Python and the packages that decide results, by their names, of this process."""
    found = {"beit": __version__, "Python": platform.python_version()}
    for package in _COMPARED:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found
