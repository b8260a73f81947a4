"""The gallery: one page for each row of the atlas, and an index that can be searched, made before Sphinx looks for pages.

Every number comes from `docs/atlas.json`, which `sfumato atlas run --all --json docs/atlas.json --update` writes. A row that is not in it,
or whose code is no longer what was run, is a warning, so that a strict build cannot show stale figures.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from gallery_figure import drawing
from gallery_index import index_page
from gallery_page import findings, row_page
from sphinx.util import logging

from sfumato.atlas import Paper

log = logging.getLogger(__name__)

COMMAND = "sfumato atlas run --all --json docs/atlas.json --update"


def write(app: Any) -> None:
    """Write all pages; what is as it was is left alone, so that it is not read again."""
    folder = Path(app.srcdir) / "gallery"
    folder.mkdir(exist_ok=True)
    found = findings(Path(app.srcdir) / "atlas.json")
    pages = {"index.md": index_page(found, lambda paper: _address(app, paper))}
    for finding in found:
        slug = finding.paper.slug
        if finding.problem:
            log.warning("%s: %s `%s` measures it.", slug, finding.problem, COMMAND, location=str(folder / f"{slug}.md"), type="gallery")
        start = time.perf_counter()
        figure = drawing(finding.paper, Path(app.doctreedir) / "gallery")
        if time.perf_counter() - start > 1:
            log.info("gallery: the figure of %s took %.1f s", slug, time.perf_counter() - start)
        pages[f"{slug}.md"] = row_page(finding, figure, folder)
    for path in folder.glob("*.md"):
        if path.name not in pages:
            path.unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def _address(app: Any, paper: Paper) -> str:
    return (
        str(app.builder.get_relative_uri("gallery/index", f"gallery/{paper.slug}"))
        if app.builder.format == "html"
        else f"{paper.slug}.html"
    )


def _dress(app: Any, pagename: str, *_: Any) -> None:
    """The style and the script are for pages of the gallery alone."""
    if pagename.startswith("gallery/"):
        app.add_css_file("gallery.css")
        if pagename == "gallery/index":
            app.add_js_file("gallery.js", loading_method="defer")


def setup(app: Any) -> dict[str, Any]:
    """Write the pages after those of the reference, which they link to."""
    app.connect("builder-inited", write, priority=600)
    app.connect("html-page-context", _dress)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
