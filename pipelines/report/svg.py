"""Small inline SVG: elements through ElementTree, so that every text is escaped, coloured by the page's style sheet."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from markupsafe import Markup

Element = ET.Element


def drawing(width: float, height: float, label: str, kind: str = "plot") -> Element:
    """An ``<svg>`` that scales with its container; ``label`` says to those who don't see it what it shows."""
    return ET.Element(
        "svg", {"viewBox": f"0 0 {number(width)} {number(height)}", "role": "img", "aria-label": label, "class": kind}
    )


def put(parent: Element, tag: str, text: str | None = None, **attributes: str | float) -> Element:
    """Adds an element; ``class_`` becomes ``class`` and other ``_`` become ``-``, numbers are rounded to 0.01."""
    made = ET.SubElement(
        parent,
        tag,
        {
            key.rstrip("_").replace("_", "-"): value if isinstance(value, str) else number(value)
            for key, value in attributes.items()
        },
    )
    made.text = text
    return made


def markup(element: Element) -> Markup:
    """The element as text for the page, every value in it escaped."""
    return Markup(ET.tostring(element, encoding="unicode"))


def number(value: float) -> str:
    """A coordinate with two decimals at most."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if value else "0"


def path(points: Sequence[tuple[float, float]]) -> str:
    """The ``d`` of a polyline."""
    return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points)


def nice_step(extent: float, parts: int = 4) -> float:
    """A step of 1, 2 or 5 times a power of ten of which about ``parts`` make up ``extent``."""
    if not extent > 0:
        return 1.0
    rough = extent / parts
    power = 10.0 ** math.floor(math.log10(rough))
    return min((factor * power for factor in (1, 2, 5, 10)), key=lambda step: abs(math.log(step / rough)))
