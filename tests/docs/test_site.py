"""The documentation as a reader gets it: built without a warning, then every page opened in a browser, narrow and wide, light and dark.

The whole site takes minutes: `make docs-check` opens it, and demands Sphinx and a Chromium. Otherwise only the pages that must fail are
opened, where there is a Chromium. `SFUMATO_SITE` names a built site to look at.
"""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browser import Browser, find

ROOT = Path(__file__).parents[2]
SURVEY = (Path(__file__).parent / "survey.js").read_text()
PARTS = 8
VIEWS = [(360, "light"), (360, "dark"), (1280, "dark"), (1280, "light")]
MISSING = [name for name in ("sphinx", "myst_parser", "furo", "latex2mathml", "websockets") if find_spec(name) is None]
REASON = (
    f"needs the extra `docs` (missing: {', '.join(MISSING)})"
    if MISSING
    else ""
    if find()
    else "needs a Chromium on the path, or in CHROMIUM"
)

pytestmark = pytest.mark.skipif(bool(REASON) and "SFUMATO_DOCS_CHECK" not in os.environ, reason=REASON or "not skipped")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if "SFUMATO_DOCS_CHECK" not in os.environ:
        pytest.skip("the whole site: make docs-check")
    if "SFUMATO_SITE" in os.environ:
        return Path(os.environ["SFUMATO_SITE"]).resolve()
    out = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-b",
        "html",
        "-d",
        out / "doctrees",
        ROOT / "docs",
        out / "html",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return out / "html"


@pytest.fixture(scope="module")
def browser():
    chromium = Browser(find())
    yield chromium
    chromium.close()


def pages_of(folder):
    hidden = {"_static", ".doctrees"}  # what pages are made of
    return sorted(path for path in folder.rglob("*.html") if not hidden & set(path.parts))


def attributes(text, name):
    return [html.unescape(value) for value in re.findall(rf'\s{name}="([^"]*)"', text)]


def broken_links(folder):
    """Links and pictures of every page that lead to no file, or to no place in it."""
    texts = {path: path.read_text() for path in pages_of(folder)}
    places = {path: set(attributes(text, "id")) | set(attributes(text, "name")) for path, text in texts.items()}
    found = []
    for path, text in texts.items():
        for link in {*attributes(text, "href"), *attributes(text, "src")}:
            parts = urlsplit(link)
            if parts.scheme or link.startswith("//"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                found.append(f"{path.relative_to(folder)}: no file for {link}")
            elif parts.fragment and target in places and unquote(parts.fragment) not in places[target]:
                found.append(f"{path.relative_to(folder)}: no place for {link}")
    return found


def seen(browser, path):
    """What a browser has to say about a page, in all views; listings of code, which are all alike, are looked at in two."""
    browser.look(*VIEWS[0])
    browser.open(path.as_uri())
    found = []
    for view in VIEWS[:: 2 if "_modules" in path.parts else 1]:
        browser.look(*view)
        found += [f"at {view[0]} px, {view[1]}: {what}" for what in browser.evaluate(SURVEY)]
    return [*browser.complaints(), *found]


@pytest.mark.parametrize("part", range(PARTS))
def test_every_page_is_sound_in_a_browser(site, browser, part):
    """In parts, for processes side by side."""
    found = {path.relative_to(site): what for path in pages_of(site)[part::PARTS] if (what := seen(browser, path))}
    assert not found, "\n".join(f"{path}: {line}" for path, lines in found.items() for line in lines)


def test_every_link_leads_somewhere(site):
    assert not broken_links(site)


def formulas(text):
    """How many formulas a page's source has, outside code."""
    text = re.sub(r"^(`{3,}).*?^\1", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"(`+)[^`].*?\1", "", text)
    return len(re.findall(r"(?<!\\)\$\$.+?\$\$|(?<![\\$])\$[^$]+\$", text, flags=re.DOTALL))


def test_every_formula_is_drawn(site):
    """As many `<math>` elements as formulas in the source; the browser has found none of them empty, and no LaTeX left."""
    total = 0
    for source in (ROOT / "docs").rglob("*.md"):
        page = site / source.relative_to(ROOT / "docs").with_suffix(".html")
        if page.exists():
            count = formulas(source.read_text())
            assert page.read_text().count("<math ") == count, source
            total += count
    assert total > 30  # the theory's chapters have that many by themselves


def results(browser, site, query):
    browser.open(f"{(site / 'search.html').as_uri()}?q={query}")
    done = "/found|did not match/i.test(document.querySelector('#search-results').innerText)"
    browser.evaluate(f"new Promise(go => {{ const look = () => {done} ? go() : setTimeout(look, 20); look() }})")
    found = browser.evaluate("[...document.querySelectorAll('#search-results li a')].map(a => a.href)")
    return found, browser.complaints()


@pytest.mark.parametrize(
    ("query", "place"), [("fit_program", "#sfumato.sample.fit_program"), ("GaussianMixture", "#sfumato.exact.GaussianMixture")]
)
def test_the_search_finds_names_from_a_file(site, browser, query, place):
    found, complaints = results(browser, site, query)
    assert not complaints
    assert any(link.endswith(place) for link in found)


def test_the_search_finds_nothing_where_there_is_nothing(site, browser):
    assert results(browser, site, "xyzzyqux") == ([], [])


def test_every_public_name_is_in_the_index(site):
    sys.path.insert(0, str(ROOT / "docs" / "_ext"))
    import reference

    links = set(attributes((site / "genindex.html").read_text(), "href"))
    places = {f"reference/{room.name}.html#{entry.module}.{entry.name}" for room in reference.rooms() for entry in room.entries}
    assert places <= links, places - links


PAGE = """<!doctype html><html><head><meta charset="utf-8"><meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,"><style>@media (prefers-color-scheme: dark) {{ body {{ background: #111; color: #eee }} }}
@media (prefers-color-scheme: light) {{ body {{ background: #fff; color: #111 }} }}</style></head>
<body><article><p id="here">A page.</p>{}</article></body></html>"""

FAULTS = {
    "console": ("<script>console.error('no')</script>", "console error: no"),
    "warning": ("<script>console.warn('hm')</script>", "console warning: hm"),
    "uncaught": ("<script>throw new Error('oops')</script>", "uncaught: Error: oops"),
    "request": ("<script src='gone.js'></script>", "request failed: net::ERR_FILE_NOT_FOUND"),
    "picture": ("<img src='gone.png'>", "picture not shown"),
    "wide": ("<div style='width: 800px'>wide</div>", "at 360 px, light: overflows by"),
    "latex": (r"<p>so \frac{1}{2} it is</p>", "raw LaTeX"),
    "dollars": ("<p>so $x_0$ it is</p>", "raw LaTeX"),
    "empty": ("<math style='display: none'><mi>x</mi></math>", "empty formula"),
    "faint": ("<p style='color: #888; background: #999'>grey</p>", "faint text"),
    "bright": ("<style>body { background: #fff !important; color: #111 !important }</style>", "background does not follow the dark scheme"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_page_with_a_fault_is_reported(tmp_path, browser, fault):
    body, expected = FAULTS[fault]
    page = tmp_path / "page.html"
    page.write_text(PAGE.format(body))
    assert any(expected in what for what in seen(browser, page)), seen(browser, page)


def test_a_page_without_a_fault_is_not_reported(tmp_path, browser):
    page = tmp_path / "page.html"
    page.write_text(PAGE.format("<div style='overflow-x: auto'><div style='width: 800px'>wide</div></div><math><mi>x</mi></math>"))
    assert seen(browser, page) == []


def test_broken_links_are_reported(tmp_path):
    links = ("other.html", "#here", "other.html#here", "gone.html", "other.html#gone")
    (tmp_path / "other.html").write_text(PAGE.format(""))
    (tmp_path / "page.html").write_text(PAGE.format("".join(f'<a href="{link}"></a>' for link in links)))
    assert sorted(broken_links(tmp_path)) == ["page.html: no file for gone.html", "page.html: no place for other.html#gone"]
