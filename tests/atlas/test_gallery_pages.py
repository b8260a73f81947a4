"""The gallery's pages say what was measured: a mark lies on the bar that passes if and only if its check passed, and nothing goes stale."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.atlas import Outcome, Row, at_least, at_most, close, control, find_paper, holds, papers, rooms
from sfumato.atlas.record import Record

EXTENSIONS = Path(__file__).parents[2] / "docs" / "_ext"


@pytest.fixture(autouse=True, scope="module")
def extensions():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXTENSIONS))
        yield


finite = st.floats(-1e6, 1e6).map(lambda x: round(x, 3))


@given(finite, finite, st.floats(0.01, 10))
def test_a_mark_lies_on_the_bar_if_and_only_if_its_check_passed(measured, bound, slack):
    from gallery_lanes import ends, place

    for check in (at_most("a", measured, bound), at_least("a", measured, bound), close("a", measured, bound, absolute=slack)):
        low, high = ends(check.low, check.high)
        low, high = (-float("inf") if low == 0 else low - 1e-9), (float("inf") if high == 1 else high + 1e-9)
        x = place(check.measured, check.low, check.high)
        if all(edge is None or abs(measured - edge) > 1e-6 * (1 + abs(edge)) for edge in (check.low, check.high)):
            assert (low <= x <= high) is check.passed


@pytest.mark.parametrize("check", [at_most("a", float("nan"), 1.0), holds("a", 3.0, "odd", True), holds("a", "up", "up", True)])
def test_what_has_no_place_is_not_drawn(check):
    from gallery_lanes import lanes

    told = lanes([check.to_dict()], control=False)
    assert "<svg" not in told
    assert "no bound to draw" in told


def test_a_table_says_in_words_and_shapes_what_it_draws():
    from gallery_lanes import lanes

    told = lanes([at_most("<b> & so on", 0.5, 1.0).to_dict(), at_most("worse", 1.5, 1.0).to_dict()], control=False)
    assert "&lt;b&gt; &amp; so on" in told
    assert re.findall('<circle class="check (good|bad)"', told) == ["good", "bad"]
    assert re.findall(r'<span class="\w+">(\w+)</span>', told) == ["passed", "failed"]
    told = lanes([control(at_most("off", 1e6, 1.0)).to_dict(), control(at_most("off", 1.5, 1.0)).to_dict()], control=True)
    assert told.count("failed, as it should") == told.count('<path class="control good"') == 2
    assert "<circle" not in told


@pytest.fixture
def record(tmp_path):
    """Two rows measured, of which one has changed since."""
    record = Record(tmp_path / "atlas.json")
    for name in ("T3", "painters"):
        row = Row(**vars(find_paper(name)), checks=[list])
        record.add(Outcome(row, [at_most("a", 0.25, 1.0), control(at_most("b", 2.0, 1.0))], 1.25))
    entries = json.loads(record.file.read_text())
    entries[0]["code"] = "other"
    record.file.write_text(json.dumps(entries))
    return record.file


def test_what_is_missing_or_has_changed_is_a_problem_and_is_said(record, tmp_path):
    from gallery_page import findings, row_page

    found = {finding.paper.slug: finding for finding in findings(record)}
    assert set(found) == {paper.slug for paper in papers()}
    assert [slug for slug, finding in found.items() if not finding.problem] == ["painters"]
    assert "changed since" in row_page(found["gaussian-score-teleport"], None, tmp_path)
    assert "has not been measured" in row_page(found["sa-solver"], None, tmp_path)
    assert {finding.problem for finding in findings(tmp_path / "no such file")} == {"This row has not been measured."}


def test_a_page_has_all_of_its_row(record, tmp_path):
    from gallery_page import findings, row_page

    (tmp_path / "reference").mkdir()
    (tmp_path / "reference" / "explain.md").write_text("# explain")
    (painters,) = (finding for finding in findings(record) if not finding.problem)
    folder = tmp_path / "gallery"
    page = row_page(painters, "<figure>drawn</figure>", folder)
    assert "reproduced" in page
    assert "<figure>drawn</figure>" in page
    assert "0.25" in page
    assert "failed, as it should" in page
    assert "sfumato atlas run T5" in page
    assert "@misc{wang2023diffusion," in page
    assert "[explain](../reference/explain.md)" in page
    assert "[sample]" not in page
    (code,) = re.findall(r"\{literalinclude\} (\S+)", page)
    assert (folder / code).resolve().name == "painters.py"
    assert "in 1.2 s on" in page


def test_the_index_has_every_row_in_its_family_with_what_it_is_found_by(record):
    from gallery_index import index_page
    from gallery_page import findings

    page = index_page(findings(record), lambda paper: f"{paper.slug}.html")
    shown = re.findall(r'<li data-family="(\w+)" data-room="([\w ]*)" data-verdict="(\w+)">.*?href="([\w-]+)\.html"', page)
    expected = {(p.family, " ".join(rooms(p)), p.reproduced, p.slug) for p in papers()}
    assert set(shown) == expected
    assert len(shown) == len(expected)
    for family in ("theory", "solvers", "processes"):
        part = page.split(f"## {family.capitalize()}")[1].split("## ")[0]
        assert set(re.findall('data-family="([a-z]+)"', part)) == {family}
    assert "2 checks and 2 controls" in page
    # without the script the form does nothing, so it is the script that shows it
    assert re.search(r'<form class="gallery-filter"[^>]* hidden>', page)
    names = set(re.findall(r'name="(\w+)"', page.split("<form")[1].split("</form>")[0]))
    assert names == {"q", "family", "room", "verdict"}


def wave(axes):
    """A wave & its bound."""
    axes.plot([1, 2, 3], [0.1, 10, 1], label="wave")
    axes.axhline(0.5, color="#123456")
    axes.set_yscale("log")
    axes.set_xlabel("time")
    axes.legend()


def test_a_figure_takes_the_colours_of_the_page_and_says_what_it_shows():
    from gallery_figure import draw

    told = draw(Row(**vars(find_paper("painters")), checks=[list], figure=wave))
    assert re.findall('<div class="(wide|narrow)"><svg', told) == ["wide", "narrow"]
    assert told.count("<figcaption>A wave &amp; its bound.</figcaption>") == 1
    assert told.count('aria-label="A wave &amp; its bound."') == 2
    # the line is the first colour, text is ink, and what a row colours itself stays
    assert "stroke: var(--ours)" in told
    assert "var(--ink)" in told
    assert "#123456" in told
    assert "#a0b0" not in told


def test_a_figure_is_drawn_once_and_again_when_its_code_changes(tmp_path, monkeypatch):
    import gallery_figure

    drawn = []
    monkeypatch.setattr(gallery_figure, "has_figure", lambda paper: True)
    monkeypatch.setattr(gallery_figure, "find", lambda slug: slug)
    monkeypatch.setattr(gallery_figure, "draw", lambda slug: drawn.append(slug) or f"<figure>{len(drawn)}</figure>")
    monkeypatch.setattr(gallery_figure, "figure_fingerprint", lambda paper: "one")
    paper = find_paper("painters")
    assert gallery_figure.drawing(paper, tmp_path / "kept") == gallery_figure.drawing(paper, tmp_path / "kept") == "<figure>1</figure>"
    monkeypatch.setattr(gallery_figure, "figure_fingerprint", lambda paper: "two")
    assert gallery_figure.drawing(paper, tmp_path / "kept") == "<figure>2</figure>"
    monkeypatch.setattr(gallery_figure, "has_figure", lambda paper: False)
    assert gallery_figure.drawing(paper, tmp_path / "kept") is None
