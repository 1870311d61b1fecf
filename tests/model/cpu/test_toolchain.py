"""Libraries of our own C++: compiled anew whenever a line of theirs changes, in a header, too."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from beitcli.model.cpu.toolchain import compiled_library, compiler

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")


def test_a_library_is_compiled_anew_when_a_header_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source, header = tmp_path / "sum[1].cpp", tmp_path / "sum[1]_terms.h"
    source.write_text('#include "sum[1]_terms.h"\nextern "C" int sum() { return kFirst + 2; }\n')
    for first in (1, 5):
        header.write_text(f"constexpr int kFirst = {first};\n")
        assert compiled_library(str(source), ("-O0",), "a test").sum() == first + 2


def test_threads_that_need_a_library_at_once_compile_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = tmp_path / "one.cpp"
    source.write_text('extern "C" int one() { return 1; }\n')
    with caplog.at_level("INFO"), ThreadPoolExecutor(4) as pool:
        libraries = pool.map(lambda _: compiled_library(str(source), ("-O0",), "a test"), range(4))
        assert [library.one() for library in libraries] == [1] * 4
    assert caplog.text.count("compiling a test") == 1
