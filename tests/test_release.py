"""The release script says what stands against a release: each way a tree can be wrong is made, and found, in a repository of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from scripts import release

import sfumato

ROOT = Path(__file__).parents[1]
REQUIRED = ("cff-version", "message", "title", "authors")
"""The keys that the schema of CITATION.cff 1.2.0 requires."""


def git(root, *arguments):
    who = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
    subprocess.run(["git", *who, *arguments], cwd=root, check=True, capture_output=True)


@pytest.fixture
def tree(tmp_path):
    """A tree that can be released."""
    (tmp_path / "src/sfumato").mkdir(parents=True)
    (tmp_path / "src/sfumato/__init__.py").write_text('"""A package."""\n\n__version__ = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 1.2.3 (2026-01-31)\n\n- New.\n\n## 1.2.2 (2025-12-01)\n\n- Old.\n")
    (tmp_path / "CITATION.cff").write_text("cff-version: 1.2.0\nversion: 1.2.3\ndate-released: 2026-01-31\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "all")
    return tmp_path


def change(root, file, old, new):
    text = (root / file).read_text()
    assert old in text
    (root / file).write_text(text.replace(old, new))


def commit(root):
    git(root, "commit", "--quiet", "--all", "--message", "changed")


def test_a_tree_that_is_in_order_is_ready(tree, capsys):
    assert release.unready(tree) == []
    assert release.main(["--only-check"], root=tree) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("src/sfumato/__init__.py", '"1.2.3"', '"1.2.4"', ["CHANGELOG.md is at version 1.2.3", "CITATION.cff is at version 1.2.3"]),
        ("CHANGELOG.md", "## 1.2.3 (", "## 1.3.0 (", ["CHANGELOG.md is at version 1.3.0"]),
        ("CHANGELOG.md", "(2026-01-31)", "(unreleased)", ["the first heading says (unreleased)"]),
        ("CITATION.cff", "version: 1.2.3", "version: 1.2.2", ["CITATION.cff is at version 1.2.2"]),
        ("CITATION.cff", "2026-01-31", "2026-01-30", ["date-released is 2026-01-30"]),
        ("CITATION.cff", "date-released: 2026-01-31\n", "", ["date-released is None"]),
    ],
)
def test_files_that_do_not_agree_are_named(tree, file, old, new, said, capsys):
    change(tree, file, old, new)
    commit(tree)
    found = release.unready(tree)
    assert len(found) == len(said)
    assert all(part in sentence for part, sentence in zip(said, found, strict=True))
    assert release.main(["--tag"], root=tree) == 1
    assert capsys.readouterr().err.startswith("not ready: ")
    assert subprocess.run(["git", "tag"], cwd=tree, check=True, capture_output=True).stdout == b""


def test_a_version_of_another_form_is_named(tree):
    for file in ("src/sfumato/__init__.py", "CHANGELOG.md", "CITATION.cff"):
        change(tree, file, "1.2.3", "1.2.dev")
    commit(tree)
    assert release.unready(tree) == ["src/sfumato/__init__.py: 1.2.dev is no version of the form 1.2.3 or 1.2.3rc1."]


def test_a_tree_with_changes_and_a_version_with_a_tag_are_refused(tree):
    git(tree, "tag", "v1.2.3")
    (tree / "new.txt").write_text("new")
    changed, tagged = release.unready(tree)
    assert "new.txt" in changed
    assert "v1.2.3 is there already" in tagged


@pytest.mark.parametrize("file", ["src/sfumato/__init__.py", "CHANGELOG.md", "CITATION.cff"])
def test_a_file_that_is_not_there_or_says_nothing_is_refused(tree, file, capsys):
    (tree / file).write_text("nothing\n")
    assert release.main(["--only-check"], root=tree) == 1
    assert f"refused: {file}: expected" in capsys.readouterr().err
    (tree / file).unlink()
    assert release.main(["--only-check"], root=tree) == 1
    assert f"refused: {file} is not there" in capsys.readouterr().err


def test_this_tree_names_one_version():
    assert {said.version for said in release.stated(ROOT)} == {sfumato.__version__}


def test_the_citation_has_what_its_schema_requires():
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert all(citation[key] for key in REQUIRED)
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["license"] == "Apache-2.0"
    assert all(author.keys() & {"name", "family-names"} for author in citation["authors"])
