"""Round trip of the names of sources."""

import os

import pytest

from beitcli.records import Source

PATHS = [
    b"a/b.jpg",
    b"caf\xe9.jpg",
    "café.jpg".encode(),
    b"\xff\xfe/\x80",
    b"\\",
    b"\\x41",
    b"\\xc3\\xa9",  # eight characters that would be text as bytes
    b"new\nline\\n",
    b"https://example.org/a%20b.jpg",
    b"-",
]


@pytest.mark.parametrize("path", PATHS)
def test_a_name_leads_back_to_the_path(path: bytes) -> None:
    name = Source(os.fsdecode(path)).name
    assert os.fsencode(Source.named(name).location) == path
    assert Source.named(name).name == name


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800"])
def test_names_of_no_path(name: str) -> None:
    with pytest.raises(ValueError):
        Source.named(name)
