"""Messages from errors of libraries."""

import pytest

from beitcli.errors import ModelError, first_line
from beitcli.model.weights import weight_errors


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one"), "one"),
        (ValueError("one\ntwo"), "one"),
        (ValueError("\n\n   \n  two words \nthree"), "two words"),
        (ValueError(), "ValueError"),
        (ValueError(" \n\t\n"), "ValueError"),
        (EOFError(), "EOFError"),
    ],
)
def test_the_first_line_that_is_not_blank(error: Exception, line: str) -> None:
    assert first_line(error) == line


def test_weight_errors_skip_blank_lines() -> None:
    with pytest.raises(ModelError, match=r"`file`: no such tensor$"), weight_errors("file"):
        raise RuntimeError("\nno such tensor\nmore")
