"""XMP of a sidecar or an image: its keywords with those of this program replaced, all else kept."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from beitcli.errors import UsageError
from beitcli.records import composed

_FLAT = "Xmp.dc.subject"
_HIERARCHICAL = "Xmp.lr.hierarchicalSubject"
_OURS = "Xmp.beit.keywords"
_NAMESPACE = "tag:beitcli,2026:xmp/"

_ROOT = "beit"
_LEVEL = "|"

_EMPTY = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/></x:xmpmeta>'
)

_SIDECAR, _WEBP = "application/rdf+xml", "image/webp"

_LIST = re.compile(
    r"(<(dc:subject|lr:hierarchicalSubject|beit:keywords)>\s*<rdf:)Seq(>.*?</rdf:)Seq(>\s*</\2>)", re.DOTALL
)
"""Keywords in order, as the library writes them; their standards want them without (`Bag`)."""


class XmpError(Exception):
    """A file whose metadata cannot be read, or not written."""


@dataclass(frozen=True, slots=True)
class Keywords:
    """Keywords of a file: flat and hierarchical ones of all programs, and which of the flat ones are this program's."""

    flat: tuple[str, ...] = ()
    hierarchical: tuple[str, ...] = ()
    ours: tuple[str, ...] = ()

    def with_ours(self, keywords: tuple[str, ...]) -> "Keywords":
        """These keywords in place of this program's earlier ones. One that another program has set stays its own."""
        others = tuple(each for each in self.flat if each not in self.ours)
        paths = tuple(f"{_ROOT}{_LEVEL}{each.replace(_LEVEL, '/')}" for each in keywords)
        kept = tuple(each for each in self.hierarchical if not each.startswith(f"{_ROOT}{_LEVEL}"))
        ours = tuple(each for each in keywords if each not in others)
        return Keywords(others + ours, kept + paths, ours)

    def is_same(self, other: "Keywords") -> bool:
        """True if there are the same ones, in any order."""
        pairs = (self.flat, other.flat), (self.hierarchical, other.hierarchical), (self.ours, other.ours)
        return all(sorted(one) == sorted(another) for one, another in pairs)


def keyword_of(label: str) -> str:
    """The label as a keyword: in Unicode's composed form, with a space for what XML or a list cannot show."""
    text = composed(label.encode("utf-8", "replace").decode())
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def check_library() -> None:
    """Raise UsageError where the library for XMP is missing."""
    _library()


def retagged(data: bytes | None, keywords: tuple[str, ...]) -> bytes | None:
    """The bytes of a file with these keywords as this program's, or None where they are so already.

    `data` is that of an XMP sidecar or an image, None for a new sidecar. Empty bytes mean that nothing is left in the
    sidecar. Raises XmpError.
    """
    pyexiv2 = _library()
    try:
        with pyexiv2.ImageData(data or _EMPTY) as file:
            metadata = file.read_xmp()
            before = _keywords(metadata)
            after = before.with_ours(keywords)
            if before.is_same(after):
                return None
            kind = file.get_mime_type()
            if kind == _SIDECAR:  # into which the library would write its translations of the XMP back
                file.clear_exif()
                file.clear_iptc()
            values = {_FLAT: after.flat, _HIERARCHICAL: after.hierarchical, _OURS: after.ours}
            file.modify_xmp({key: list(value) or None for key, value in values.items()})
            if file.read_xmp():
                file.modify_raw_xmp(_LIST.sub(r"\1Bag\3Bag\4", file.read_raw_xmp()))
            elif kind == _SIDECAR:
                return b""
            elif kind == _WEBP:  # of which the library removes no XMP
                file.modify_raw_xmp(_EMPTY.decode())
            else:
                file.clear_xmp()
            return bytes(file.get_bytes())
    except RuntimeError as error:
        raise XmpError(" ".join(str(error).split()) or "unreadable metadata") from error


def _keywords(metadata: dict[str, Any]) -> Keywords:
    return Keywords(*(tuple(_texts(metadata.get(key, []))) for key in (_FLAT, _HIERARCHICAL, _OURS)))


def _texts(value: Any) -> Iterable[str]:
    """The texts of a list, or of what another program has written in its place."""
    if isinstance(value, dict):
        return map(str, value.values())
    return [value] if isinstance(value, str) else map(str, value)


def _library() -> Any:
    try:
        import pyexiv2
    except ImportError as error:
        raise UsageError("tags need pyexiv2", "`pip install 'beitcli[xmp]'`") from error
    pyexiv2.set_log_level(3)  # errors, which it raises; warnings would be printed
    pyexiv2.registerNs(_NAMESPACE, "beit")
    return pyexiv2
