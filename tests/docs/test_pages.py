"""The pages: every block runs as it stands, what it prints is what the page says, links lead somewhere, rows are in the atlas."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from given import give, in_small, tune_in_small
from page_blocks import blocks, run_page

from sfumato.cli import main

ROOT = Path(__file__).parents[2]
MADE = tuple(ROOT / "docs" / name for name in ("_build", "gallery", "reference"))
"""Made by the site's build, each from its own source."""
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if not any(page.is_relative_to(made) for made in MADE)]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))


@pytest.fixture
def sfumato(monkeypatch):
    """The command line in small: it trains for a few steps, and tuning takes what is at hand."""
    monkeypatch.setattr("sfumato.tune.tune", tune_in_small)
    monkeypatch.setattr("sfumato.tune.report.write_report", lambda result, path, recipe: path.write_text("<!doctype html>"))

    def call(command: list[str]) -> int:
        with pytest.raises(SystemExit) as stop:
            main(in_small(command))
        return int(stop.value.code or 0)

    return call


@every_page
def test_every_block_runs_and_prints_what_the_page_says(page, sfumato, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = page.read_text()
    run_page(page, lambda name: give(name, tmp_path), sfumato)
    assert page.read_text() == before


@every_page
def test_what_is_not_run_says_why(page):
    for block in blocks(page.read_text()):
        assert block.not_run is None or len(block.not_run.split()) >= 3, f"{page.name}:{block.line}: {block.not_run!r} is no reason"


@every_page
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|mailto:)([^)#\s]+)", page.read_text()):
        place = (page.parent / target).resolve()
        assert place.exists() or any(place.is_relative_to(made) for made in MADE), target


@every_page
def test_rows_named_on_pages_are_in_the_atlas(page):
    from sfumato.atlas import find

    for names in re.findall(r"sfumato atlas (?:show|run|cite)((?: [A-Za-z0-9][\w-]*)+)", page.read_text()):
        for name in names.split():
            if name not in ("SLUG", "ID", "ROW"):
                find(name)


@every_page
def test_a_page_keeps_its_promise_of_lines(page):
    """A title with "in 15 lines" speaks of the first class on the page: its docstring and blank lines are not counted."""
    promised = re.search(r"^# .*\bin (\d+) lines", page.read_text())
    if promised is None:
        return
    first = next(block.code for block in blocks(page.read_text()) if "\nclass " in block.code)
    body = "class " + first.split("\nclass ", 1)[1]
    own = re.split(r"\n(?=\S)", body)[0].splitlines()
    lines = [line for line in own if line.strip() and '"""' not in line]
    assert len(lines) <= int(promised[1]), lines


BAD = {
    "a block that fails": "```python\n1 / 0\n```\n",
    "an output that is not so": "```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n",
    "an output without its block": "```text\n3\n```\n",
    "a test on the page that fails": "```python\ndef test_it():\n    assert False\n```\n",
    "a command that fails": "```sh\nsfumato sample nothing\n```\n",
    "a command of something else": "```sh\nmake tune\n```\n",
    "an import that is not there": "<!-- not run: takes two GPUs -->\n```python\nfrom sfumato.sample import Nothing\n```\n",
    "a name that nobody gave": "```python\nprint(model)\n```\n",
    "code in no language": "```\nsome code\n```\n",
}


@pytest.mark.parametrize("what", BAD)
def test_a_page_that_is_wrong_is_seen(what, sfumato, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page.md").write_text(f"# A page\n\nSome words.\n\n{BAD[what]}")
    with pytest.raises((AssertionError, ZeroDivisionError, ImportError, NameError)):
        run_page(tmp_path / "page.md", lambda name: give(name, tmp_path), sfumato)


def test_blocks_of_a_page_share_what_they_know(sfumato, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nx = 2\n```\n\nand then\n\n```python\nprint(x + 1)\n```\n\n```text\n3\n```\n\n"
        "<!-- not run: needs two GPUs -->\n```python\n1 / 0\n```\n\n```sh\nsfumato atlas list  # a comment\n```\n"
    )
    assert run_page(page, lambda name: give(name, tmp_path), sfumato) == ["page.md:2", "page.md:8", "sfumato atlas list"]
