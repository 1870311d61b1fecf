"""Files that hold the tags of an image: its sidecar, in either style, or the image itself; replaced whole."""

import os
import zlib
from contextlib import suppress
from typing import Literal

from beitcli.file_system import copy_mode, replace, sync
from beitcli.tagging.xmp import retagged

SidecarStyle = Literal["name", "stem"]


def sidecar_of(image: str, style: SidecarStyle) -> str:
    """The path of the image's sidecar: `IMG_1.jpg.xmp` by its name, `IMG_1.xmp` by its stem."""
    return f"{image if style == 'name' else os.path.splitext(image)[0]}.xmp"


def tag(path: str, keywords: tuple[str, ...], dry_run: bool) -> bool:
    """Give a file these keywords in place of earlier ones of ours; False if it has them, and stays as it is.

    A sidecar that is not there is made, if there are keywords; one in which nothing is left is deleted. The new file is
    on its disk before it replaces the old one. With `dry_run` nothing is written. Raises OSError, XmpError.
    """
    target = os.path.realpath(path)
    try:
        with open(target, "rb") as stream:
            data = stream.read()
    except FileNotFoundError:
        if not keywords:
            return False
        data = None
    new = retagged(data, keywords)
    if new is None:
        return False
    if not dry_run and new:
        _replace(target, new)
    elif not dry_run:
        os.unlink(target)
    return True


def _replace(path: str, data: bytes) -> None:
    folder, name = os.path.split(path)
    part = os.path.join(folder, f".beit-tag-{zlib.crc32(os.fsencode(name)):08x}.part")
    try:
        with open(part, "wb") as stream:
            copy_mode(stream.fileno(), path)
            stream.write(data)
            stream.flush()
            sync(stream.fileno())
        replace(part, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise
