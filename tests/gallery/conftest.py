"""Chromium, without a window, for the tests of pages."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gallery.chromium import Chromium


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """The browser; skipped, with the reason, where it is not installed."""
    pytest.importorskip("selenium", reason="needs Selenium: the extra `browser`")
    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    missing = [name for name, path in programs.items() if path is None]
    if missing:
        pytest.skip(f"needs {' and '.join(missing)}: Debian's chromium and chromium-driver")
    browser = Chromium(programs["chromium"] or "", programs["chromedriver"] or "", tmp_path_factory.mktemp("downloads"))
    try:
        yield browser
    finally:
        browser.quit()


@pytest.fixture
def opened(chromium: Chromium) -> Iterator[Callable[..., Any]]:
    """Open a page, in a window of a size and a colour scheme; at the end, nothing it logged is an error."""

    def open_page(page: Path, width: int = 1280, height: int = 900, dark: bool = False) -> Chromium:
        chromium.open(page, width, height, dark)
        return chromium

    yield open_page
    assert chromium.errors() == []
