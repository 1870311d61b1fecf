"""Failures that may pass on a retry, and those that an unchanged image keeps."""

PERMANENT = frozenset({"empty_file", "not_an_image", "truncated", "corrupt", "too_large", "unsupported"})
"""Failures that an unchanged image keeps, like `http_4NN` except `TRANSIENT`."""

TRANSIENT = frozenset({"http_408", "http_425", "http_429"})
MOST_CRASHES = 2
"""Crashes of its decoder after which an unchanged image is not tried again: one may be accidental."""


def is_transient(code: str) -> bool:
    """True if the failure of an unchanged image may pass on a retry."""
    permanent_http = code.startswith("http_4") and code not in TRANSIENT
    return not (code in PERMANENT or code == "decoder_crashed" or permanent_http)
