"""The page: template, style and scripts joined into one file that needs nothing else and may load nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from pipelines.summary import known_numbers

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("three.min.js", "viewer.js", "page.js")
STYLE = "report.css"


def render(template: str, context: Mapping[str, Any]) -> str:
    """The page as text. Every value of the context is escaped, unless it's markup of our own making."""
    scripts = [_asset(name) for name in (SCRIPTS if context.get("scene_data") else SCRIPTS[2:])]
    style = _asset(STYLE)
    policy = (
        "default-src 'none'; img-src data:; "
        f"style-src {_hash(style)}; script-src {' '.join(_hash(script) for script in scripts)}; "
        "base-uri 'none'; form-action 'none'"
    )
    page = _environment().get_template(template)
    return page.render(
        context,
        policy=policy,
        style=Markup(style),
        scripts=[Markup(script) for script in scripts],
    )


def script_data(data: Any) -> Markup:
    """JSON for a ``<script>`` element that is no program: nothing in it can end the element."""
    text = json.dumps(known_numbers(data), separators=(",", ":"), allow_nan=False)
    for character, code in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")):
        text = text.replace(character, code)
    return Markup(text)


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.tests["finite"] = lambda value: isinstance(value, int | float) and math.isfinite(value)
    return environment


@lru_cache(maxsize=8)
def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """As the browser computes it: over what stands between the tags."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
