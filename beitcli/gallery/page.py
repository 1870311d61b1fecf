"""Gallery and thumbnails -> one HTML page with its scripts, styles and data in itself."""

import base64
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

_SCRIPTS = (
    *("records", "corrections", "view", "labels", "grid", "lightbox"),
    *("scores", "filters", "matrix", "accuracy", "actions", "start"),
)
"""Scripts of the page in the order in which they are run."""


def page(data: Mapping[str, Any], thumbnails: Mapping[str, bytes], identity: str) -> str:
    """The page with this data and the thumbnails that it holds in itself, by their names.

    In the browser, corrections are kept under `identity`. A Content-Security-Policy lets nothing run but the page's own
    scripts, by their digest, and nothing be loaded but local images: names and labels are untrusted.
    """
    script = Markup(f'"use strict";\n{{\n{"".join(_text(f"{name}.js") for name in _SCRIPTS)}}}\n')  # noqa: S704
    style = Markup(_text("page.css"))  # noqa: S704
    encoded = {name: base64.b64encode(content).decode() for name, content in thumbnails.items()}
    return _template().render(
        data=data,
        thumbnails=encoded,
        identity=identity,
        script=script,
        style=style,
        script_digest=_digest(script),
        style_digest=_digest(style),
    )


@cache
def _text(name: str) -> str:
    return (files("beitcli.gallery") / "browser" / name).read_text(encoding="utf-8")


def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("beitcli.gallery", "browser"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return environment.get_template("page.html.j2")


def _digest(text: str) -> str:
    """The digest by which a Content-Security-Policy names a script or style."""
    return f"sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}"
