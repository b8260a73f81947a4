"""What pages are made of: the style they share, and drawings that take the page's colours.

A drawing is made in placeholder colours, which become the page's CSS variables, so one drawing is legible in light and in dark.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

INKS = ("ink", "quiet", "faint", "ours", "peer", "peer-thin", "classic", "one", "two", "three", "four")
COLOURS = {name: f"#a0b0{i:02x}" for i, name in enumerate(INKS)}
"""The placeholder of each of the style sheet's colours."""
TEXT = 12
"""The size of a drawing's text, in CSS pixels where a point is one."""


def css() -> str:
    """The style sheet."""
    return resources.files("sfumato.explain").joinpath("page.css").read_text(encoding="utf-8")


def round_numbers(low: float, high: float) -> list[float]:
    """Powers of ten between two numbers; with 2 and 5 times them if there are few, and only some if there are many."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps, stride = ((1, 2, 5), 1) if last - first <= 2 else ((1,), 1 + (last - first) // 8)
    values = [step * 10.0**power for power in range(first, last + 1, stride) for step in steps]
    return [value for value in values if low <= value <= high]


def ticks(axis: Any, values: Sequence[float], text: Callable[[float], str] = "{:g}".format) -> None:
    """Ticks at these values alone, written as plain numbers."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    axis.set_major_locator(FixedLocator(values))
    axis.set_major_formatter(FixedFormatter([text(value) for value in values]))
    axis.set_minor_locator(NullLocator())


def svg(figure: Any, name: str, says: str) -> str:
    """A matplotlib figure as an `<svg>` element that stands alone in a page.

    Arguments:
        figure: drawn in `COLOURS`.
        name: prefix of the element's ids, unique in the page.
        says: what a reader who cannot see it is told.
    """
    for text in figure.findobj(lambda artist: hasattr(artist, "set_parse_math")):
        # whatever a model or a scheduler is called, it is not a formula; and no setting of the user's own plots applies
        text.set(parse_math=False, usetex=False, fontfamily="DejaVu Sans")
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _inline(out.getvalue(), name, says)


def _inline(text: str, name: str, says: str) -> str:
    body = text[text.index("<svg") : text.rindex("</svg>")]
    body = re.sub(r"<!--.*?-->|<style.*?</style>|<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    view = re.search(r'viewBox="[^"]*"', body)
    body = body[body.index(">") + 1 :].replace("xlink:href", "href")
    # ids are drawn at random and would clash between figures
    used = dict.fromkeys(re.findall(r'(?:href="#|url\(#)([^")]+)', body))
    new = {old: f"{name}-{i}" for i, old in enumerate(used)}
    body = re.sub(r'\s+id="([^"]*)"', lambda m: f' id="{new[m[1]]}"' if m[1] in new else "", body)
    body = re.sub(r'(href="#|url\(#)([^")]+)', lambda m: m[1] + new[m[2]], body)
    for ink, colour in COLOURS.items():
        body = body.replace(colour, f"var(--{ink})")
    # a hundredth of a pixel is enough, but not for the glyphs' scale
    body = re.sub(r"(?<!scale\()\b(\d+\.\d\d)\d+", r"\1", re.sub(r"\s*\n\s*", " ", body))
    label = says.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return f'<svg {view[0] if view else ""} role="img" aria-label="{label}">{body}</svg>'
