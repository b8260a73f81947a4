"""References are BibTeX that any BibTeX reads: a small parser of its grammar, stricter than the programs, takes every one of them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import sfumato
from sfumato.atlas import Paper, bibtex, papers
from sfumato.atlas.cite import authors, entry, key_of
from sfumato.cli import main
from sfumato.errors import ArgumentError


def parsed(text: str) -> dict[str, dict[str, str]]:
    """Key to fields; anything but whole entries, one after another, fails."""
    found: dict[str, dict[str, str]] = {}
    at = 0
    while text[at:].strip():
        head = re.compile(r"\s*@(\w+)\{([\w:-]+),\n").match(text, at)
        assert head, text[at : at + 80]
        kind, key = head.groups()
        assert key not in found, f"{key} twice"
        at, fields = head.end(), {"kind": kind}
        while not text.startswith("}", at):
            name = re.compile(r"  (\w+) = ").match(text, at)
            assert name, text[at : at + 80]
            value, at = braced(text, name.end())
            assert name[1] not in fields
            assert text[at : at + 2] == ",\n"
            fields[name[1]], at = value, at + 2
        found[key], at = fields, at + 1
    return found


def braced(text: str, at: int) -> tuple[str, int]:
    assert text[at] == "{"
    depth, start = 0, at
    while True:
        if text[at] == "\\":
            at += 2
            continue
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        at += 1
        if depth == 0:
            return text[start + 1 : at - 1], at


def test_every_row_can_be_cited_and_all_of_them_at_once():
    found = parsed(bibtex(*(paper.slug for paper in papers())))
    assert {fields["eprint"] for fields in found.values()} == {paper.arxiv for paper in papers()}
    for paper in papers():
        (fields,) = parsed(sfumato.cite(paper.id)).values()
        assert set(fields) == {"kind", "title", "author", "year", "eprint", "archivePrefix", "url"}
        assert re.fullmatch(r"\d{4}\.\d{5}", fields["eprint"])
        assert fields["url"].endswith(fields["eprint"])
        assert fields["year"] == str(paper.year)
        assert all(part.isascii() for part in fields.values())
        assert "et al" not in fields["author"]


def test_every_author_is_named_in_full():
    for paper in papers():
        assert all(" " in name for name in authors(paper.authors)), paper.slug


def test_two_rows_of_one_paper_are_one_entry():
    assert bibtex("T3", "T6") == bibtex("T6", "T3") == bibtex("T3")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Ada Lovelace", ["Ada Lovelace"]),
        ("Ada Lovelace and Emmy Noether", ["Ada Lovelace", "Emmy Noether"]),
        ("A. Lovelace, E. Noether and S. Anderson", ["A. Lovelace", "E. Noether", "S. Anderson"]),
        ("A. Lovelace, E. Noether, and S. Anderson", ["A. Lovelace", "E. Noether", "S. Anderson"]),
        ("Ada Lovelace et al.", ["Ada Lovelace", "others"]),
        ("A. Lovelace, E. Noether, et al.", ["A. Lovelace", "E. Noether", "others"]),
        ("Fernanda Andrade", ["Fernanda Andrade"]),
    ],
)
def test_lists_of_authors_are_taken_apart(text, names):
    assert authors(text) == names


def paper(**other: object) -> Paper:
    facts = {"id": "X1", "slug": "x", "title": "On the Use of 50% Noise_1 & {Braces}: a $5 Tale", "authors": "Zoë Łukasz Brøgger, Søren Kå"}
    return Paper(**{**facts, "year": 2024, "arxiv": "2401.00001", "claim": "It holds.", "reproduced": "yes", **other})  # type: ignore[arg-type]


def test_what_latex_takes_for_its_own_is_escaped():
    (fields,) = parsed(entry(paper(), "key")).values()
    assert fields["title"] == r"{On the Use of 50\% Noise\_1 \& \{Braces\}: a \$5 Tale}"
    assert fields["author"] == r"Zo{\"e} {\L}ukasz Br{\o}gger and S{\o}ren K{\r a}"


def test_keys_are_made_of_surname_year_and_a_word_of_weight():
    assert key_of(paper()) == "brgger2024use"
    assert key_of(paper(authors="Mihaela van der Schaar", title="The What's-it: 3D")) == "schaar2024whatsit"


def test_papers_with_the_same_key_are_told_apart(monkeypatch):
    same = [paper(), paper(arxiv="2401.00002", slug="y")]
    monkeypatch.setattr("sfumato.atlas.cite.find_paper", lambda name: same[int(name)])
    assert list(parsed(bibtex("0", "1"))) == ["brgger2024use", "brgger2024useb"]


def test_the_library_cites_itself_as_its_citation_file_does():
    (fields,) = parsed(sfumato.cite()).values()
    told = (Path(__file__).parents[2] / "CITATION.cff").read_text()
    assert fields["kind"] == "software"
    assert re.findall(r"^version: (\S+)$", told, re.MULTILINE) == [fields["version"]] == [sfumato.__version__]
    assert re.findall(r"^  - name: (.+)$", told, re.MULTILINE) == [fields["author"].strip("{}")]


def test_citing_loads_no_torch():
    code = "import sys, sfumato; sfumato.cite(); sfumato.cite('T3'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_row_is_an_error():
    with pytest.raises(ArgumentError, match="id or slug"):
        sfumato.cite("no-such-paper")


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return int(stop.value.code or 0)


def test_the_command_prints_them(capsys):
    assert call("atlas", "cite", "T3", "painters") == 0
    assert capsys.readouterr().out == bibtex("T3", "painters")
    assert call("atlas", "cite") == 0
    assert capsys.readouterr().out == bibtex()
    assert call("atlas", "cite", "--all") == 0
    assert len(parsed(capsys.readouterr().out)) == len({p.arxiv for p in papers()})
    assert call("atlas", "cite", "T3", "--all") == 2
