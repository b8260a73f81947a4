"""How the site is built: Sphinx, Markdown, no network and no script but the theme's own. `make docs` builds it."""

from __future__ import annotations

import sys
from pathlib import Path

import sfumato

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "sfumato"
author = "the sfumato authors"
release = version = sfumato.__version__
copyright = author
language = "en"

extensions = ["myst_parser", "sphinx.ext.viewcode", "mathml", "reference", "names"]
if (HERE / "_ext" / "gallery.py").exists():
    extensions.append("gallery")
exclude_patterns = ["_build", "_ext", "**/README.txt"]

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist", "attrs_block"]
myst_heading_anchors = 4
html_math_renderer = "mathml"

html_theme = "furo"
html_title = "sfumato"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {"navigation_with_keys": True}
html_copy_source = False
html_show_sphinx = False
# the summaries are fetched by a script, which a page opened from a file may not do
html_show_search_summary = False
pygments_style = "default"
pygments_dark_style = "github-dark"
python_maximum_signature_line_length = 88
# every page draws the whole tree of contents; each room lists its names by itself
toc_object_entries = False
highlight_language = "text"
