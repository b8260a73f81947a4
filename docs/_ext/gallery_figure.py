"""The picture that a row draws of its paper, in the page's own colours; it is kept until the code that draws it changes."""

from __future__ import annotations

import hashlib
import html
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfumato.atlas import Paper, Row, find
from sfumato.atlas.source import figure_fingerprint, has_figure
from sfumato.explain.explanation import Explanation
from sfumato.explain.report.write import drawing as svg

WIDTHS = {"wide": 620, "narrow": 350}


@dataclass(frozen=True)
class Picture(Explanation):
    """A row's figure, as what the report draws: it is drawn the same way."""

    draws: Callable[[Any], None]
    says: str

    @property
    def numbers(self) -> dict[str, float]:
        return {}

    @property
    def meaning(self) -> str:
        return self.says

    def plot(self, ax: Any) -> None:
        self.draws(ax)


def drawing(paper: Paper, kept: Path) -> str | None:
    """The `<figure>` of a row that draws one, from the folder where drawings are kept if it is there."""
    if not has_figure(paper):
        return None
    print_of = hashlib.sha256((figure_fingerprint(paper) + Path(__file__).read_text("utf-8")).encode()).hexdigest()
    file = kept / f"{paper.slug}-{print_of[:16]}.html"
    if not file.exists():
        text = draw(find(paper.slug))
        kept.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
    return file.read_text("utf-8")


def draw(row: Row) -> str:
    """Draw it for wide and for narrow pages: the caption is the docstring of the function that does."""
    assert row.figure is not None
    picture = Picture(row.figure, " ".join((row.figure.__doc__ or f"What {row.slug} shows.").split()))
    drawn = "".join(f'<div class="{kind}">{svg(picture, width, f"{row.slug}-{kind}")}</div>' for kind, width in WIDTHS.items())
    return f'<figure class="row-figure">{drawn}<figcaption>{html.escape(picture.says)}</figcaption></figure>'
