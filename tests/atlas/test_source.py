"""What is read of a row's file: its rooms, and a fingerprint that changes with the code of its checks alone."""

from __future__ import annotations

import shutil

import pytest

from sfumato.atlas import find_paper, papers, rooms, source
from sfumato.errors import ArgumentError


def test_papers_are_in_the_order_of_their_ids_and_in_a_family():
    ids = [p.id for p in papers()]
    assert ids[:6] == ["T1", "T2", "T3", "T4", "T5", "T6"]
    assert ids[6:] == sorted(ids[6:])
    assert {p.family for p in papers()} == {"theory", "solvers", "processes"}


def test_rooms_are_those_that_the_module_and_what_it_builds_on_import():
    # er_sde imports noise and sample itself, and its exact world through worlds.py
    assert rooms(find_paper("er-sde")) == ["exact", "noise", "sample"]
    assert all(rooms(p) for p in papers())


def test_an_unknown_name_is_an_error_that_names_its_neighbours():
    with pytest.raises(ArgumentError, match="Near it: painters"):
        find_paper("paintrs")


@pytest.fixture
def atlas(tmp_path, monkeypatch):
    """A copy of the atlas that may be changed."""
    shutil.copytree(source._HOME, tmp_path / "atlas")
    monkeypatch.setattr(source, "_HOME", tmp_path / "atlas")
    source._tree.cache_clear()
    yield tmp_path / "atlas"
    source._tree.cache_clear()


@pytest.mark.parametrize(
    ("file", "old", "new", "changes"),
    [
        ("solvers/er_sde.py", "def ", "# a comment\ndef ", False),
        ("solvers/er_sde.py", 'reproduced="partly"', 'reproduced="no"', False),
        ("solvers/er_sde.py", "    checks=", "    figure=None,\n    checks=", False),
        ("solvers/er_sde.py", "yield at_most(", "yield at_least(", True),
        ("solvers/worlds.py", "STARTS = 64", "STARTS = 65", True),
        ("networks.py", "def ", "def _unused() -> None: ...\n\n\ndef ", False),
        ("solvers/pictures.py", "markersize=4", "markersize=3", False),
    ],
)
def test_a_fingerprint_changes_with_the_code_of_the_checks_alone(atlas, file, old, new, changes):
    paper = find_paper("er-sde")
    before, path = source.fingerprint(paper), atlas / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    source._tree.cache_clear()
    assert (source.fingerprint(paper) != before) is changes


def test_a_figure_changes_with_what_only_it_needs(atlas):
    paper, path = find_paper("er-sde"), atlas / "solvers/pictures.py"
    before = source.figure_fingerprint(paper)
    path.write_text(path.read_text().replace("markersize=4", "markersize=3"))
    source._tree.cache_clear()
    assert source.figure_fingerprint(paper) != before


@pytest.mark.parametrize(("old", "new", "changes"), [("markersize=4", "markersize=3", False), ("grid(400)", "grid(401)", True)])
def test_the_figure_of_one_row_is_no_part_of_another_that_builds_on_it(atlas, old, new, changes):
    # d_ode takes its world from iia
    paper, path = find_paper("d-ode"), atlas / "solvers/iia.py"
    before, text = source.fingerprint(paper), path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    source._tree.cache_clear()
    assert (source.fingerprint(paper) != before) is changes


def test_docstrings_are_not_code(atlas):
    path = atlas / "theory/painters.py"
    text = path.read_text()
    start = text.index('    """', text.index("\ndef ")) + 7
    before = source.fingerprint(find_paper("painters"))
    path.write_text(text[:start] + "Said otherwise. " + text[start:])
    source._tree.cache_clear()
    assert source.fingerprint(find_paper("painters")) == before
