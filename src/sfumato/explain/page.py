"""What pages are made of: the style they share, and drawings that take the page's colours.

A drawing is made in placeholder colours, which become the page's CSS variables, so one drawing is legible in light and in dark.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources


def css() -> str:
    """The style sheet."""
    return resources.files("sfumato.explain").joinpath("page.css").read_text(encoding="utf-8")


def inline(text: str, name: str, says: str, colours: Mapping[str, str]) -> str:
    """A drawing as an `<svg>` element that stands alone in a page.

    Arguments:
        text: what matplotlib wrote.
        name: prefix of the element's ids, unique in the page.
        says: what a reader who cannot see it is told.
        colours: what each colour of the drawing becomes.
    """
    body = text[text.index("<svg") : text.rindex("</svg>")]
    body = re.sub(r"<!--.*?-->|<style.*?</style>|<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    view = re.search(r'viewBox="[^"]*"', body)
    body = body[body.index(">") + 1 :].replace("xlink:href", "href")
    # ids are drawn at random and would clash between figures
    used = dict.fromkeys(re.findall(r'(?:href="#|url\(#)([^")]+)', body))
    new = {old: f"{name}-{i}" for i, old in enumerate(used)}
    body = re.sub(r'\s+id="([^"]*)"', lambda m: f' id="{new[m[1]]}"' if m[1] in new else "", body)
    body = re.sub(r'(href="#|url\(#)([^")]+)', lambda m: m[1] + new[m[2]], body)
    for colour, becomes in colours.items():
        body = body.replace(colour, becomes)
    # a hundredth of a pixel is enough, but not for the glyphs' scale
    body = re.sub(r"(?<!scale\()\b(\d+\.\d\d)\d+", r"\1", re.sub(r"\s*\n\s*", " ", body))
    label = says.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return f'<svg {view[0] if view else ""} role="img" aria-label="{label}">{body}</svg>'
