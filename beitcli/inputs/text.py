"""Text files from elsewhere -> UTF-8: with or without a byte order mark, or UTF-16 by its mark; no other encoding."""

import codecs
from collections.abc import Iterator

from beitcli.errors import UsageError
from beitcli.records import printable

_LONGEST_SHOWN = 60
"""Characters of a line that an error shows."""

_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8",
}

_SAVE = "save it as UTF-8"


def read_text(path: str) -> str:
    """The whole text of a file, its line ends as they are. Raises UsageError that names another encoding, OSError."""
    name = f"`{printable(path)}`"
    with open(path, "rb") as stream:
        data = b"".join(utf8_blocks(iter([stream.read()]), name))
    if b"\0" in data:
        raise UsageError(f"{name} is no text: it has NUL in it", _SAVE)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        number, start = data.count(b"\n", 0, error.start), data.rfind(b"\n", 0, error.start) + 1
        raise not_utf8(name, number + 1, data[start:].partition(b"\n")[0]) from error


def utf8_blocks(blocks: Iterator[bytes], name: str) -> Iterator[bytes]:
    """The blocks of a text in UTF-8, without its mark; one in UTF-16 by its mark is converted.

    Reads no further ahead than to the end of the first line. Other bytes pass. Raises UsageError for UTF-32, for UTF-16
    that is broken or has no mark; `name` is the text's in messages.
    """
    head = b""
    for block in blocks:
        head += block
        if len(head) >= 4 or b"\n" in head:
            break
    mark = next((mark for mark in _MARKS if head.startswith(mark)), b"")
    encoding = _MARKS.get(mark, "utf-8")
    if encoding == "utf-32":
        raise UsageError(f"{name} is in UTF-32", _SAVE)
    if not mark and [not byte for byte in head[:4]] in ([False, True] * 2, [True, False] * 2):
        raise UsageError(f"{name} is in UTF-16 without a byte order mark", _SAVE)
    if encoding == "utf-16":
        yield from _from_utf16(head, blocks, name)
        return
    yield head[len(mark) :]
    yield from blocks


def not_utf8(name: str, number: int, line: bytes) -> UsageError:
    """Error for a line, the `number`th of a text, that is not UTF-8: the first such byte, and an encoding to try."""
    try:
        line.decode()
    except UnicodeDecodeError as error:
        where = f"byte 0x{line[error.start]:02X} at position {error.start + 1} is not UTF-8"
    hint = _SAVE
    try:
        shown = printable(line.rstrip(b"\r").decode("cp1252")[:_LONGEST_SHOWN])
        hint = f"in Windows-1252 the line is `{shown}`: if that is right, {_SAVE}"
    except UnicodeDecodeError:
        pass
    return UsageError(f"{name}, line {number}: {where}", hint)


def _from_utf16(head: bytes, blocks: Iterator[bytes], name: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder("utf-16")()
    try:
        yield decoder.decode(head).encode()
        for block in blocks:
            yield decoder.decode(block).encode()
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} is broken: it begins as UTF-16, and then is none ({error.reason})", _SAVE) from error
