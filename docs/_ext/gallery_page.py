"""The page of one row: its claim, its figure, what was measured against what, how to run it, its reference and its code."""

from __future__ import annotations

import html
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gallery_lanes import lanes

from sfumato.atlas import Paper, bibtex, papers, rooms
from sfumato.atlas.record import is_current, read
from sfumato.atlas.source import file_of

VERDICTS = {"yes": "reproduced", "partly": "reproduced in part", "no": "not reproduced"}
KEY = (
    "Each line has a scale of its own. The bar is what passes. A dot is a check; a diamond is a control, which has the mechanism "
    "switched off and has to lie outside; an arrow is a value beyond the line."
)


@dataclass(frozen=True)
class Finding:
    """A row with what was found.

    Arguments:
        paper: its paper.
        entry: what `docs/atlas.json` has of it; None if nothing.
        problem: what is wrong with that; empty if nothing is.
    """

    paper: Paper
    entry: dict[str, Any] | None
    problem: str

    def count(self, kind: str) -> int:
        """How many `checks` or `controls` were measured."""
        return len(self.entry[kind]) if self.entry is not None else 0


def findings(record: Path) -> list[Finding]:
    """Every row of the atlas with what a record has of it, and with what is wrong with that."""
    measured = {entry["slug"]: entry for entry in read(record)} if record.exists() else {}
    found = []
    for paper in papers():
        entry = measured.get(paper.slug)
        problem = "This row has not been measured." if entry is None else ""
        if entry is not None and not is_current(entry, paper):
            problem = "The code of this row has changed since these figures were measured."
        found.append(Finding(paper, entry, problem))
    return found


def badge(paper: Paper) -> str:
    """Whether the claim was reproduced, as HTML."""
    return f'<span class="badge {paper.reproduced}">{VERDICTS[paper.reproduced]}</span>'


def raw(text: str) -> str:
    """HTML as a part of a page."""
    return f"```{{raw}} html\n{text}\n```"


def row_page(finding: Finding, figure: str | None, folder: Path) -> str:
    """The page, as Markdown, for a folder of the site's sources."""
    paper = finding.paper
    parts = [f"# {plain(paper.title)}", raw(_head(paper))]
    if finding.problem:
        parts.append(f":::{{warning}}\n{finding.problem}\n:::")
    if figure is not None:
        parts.append(raw(figure))
    parts += _measured(finding)
    parts += [
        "## Run it",
        f"```sh\nsfumato atlas run {paper.id}     # measure it again\nsfumato atlas show {paper.id}    # the claim and the code\n```",
        f"Built from parts of {_linked(paper, folder)}.",
        "## Cite the paper",
        f'`sfumato atlas cite {paper.id}`, or `sfumato.cite("{paper.id}")` in Python:',
        f"```bibtex\n{bibtex(paper.slug)}```",
        "## The code of this row",
        f"```{{literalinclude}} {os.path.relpath(file_of(paper.module), folder)}\n:language: python\n```",
    ]
    return "\n\n".join(parts) + "\n"


def plain(text: str) -> str:
    """Text in which Markdown sees nothing of its own."""
    return re.sub(r"([\\`*_\[\]<>$#])", r"\\\1", text)


def _head(paper: Paper) -> str:
    facts = [
        html.escape(paper.authors),
        str(paper.year),
        f'<a href="https://arxiv.org/abs/{paper.arxiv}">arXiv {paper.arxiv}</a>',
        f"{paper.id} <code>{paper.slug}</code>",
    ]
    return f'<p class="row-facts">{" · ".join(facts)}</p>\n<p class="row-claim">{badge(paper)} {html.escape(paper.claim)}</p>'


def _measured(finding: Finding) -> list[str]:
    if finding.entry is None:
        return []
    parts = ["## What was measured", KEY, raw(lanes(finding.entry["checks"], control=False))]
    if finding.entry["controls"]:
        parts += ["### Controls: the mechanism switched off", raw(lanes(finding.entry["controls"], control=True))]
    machine, took = finding.entry["machine"], finding.entry["seconds"]
    threads = f"{machine['threads']} thread{'s' if machine['threads'] > 1 else ''} of {machine['cores']} cores"
    versions = f"Python {machine['python']}, torch {machine['torch']}, sfumato {machine['sfumato']}"
    return [*parts, f"Measured in {took:g} s on {plain(machine['processor'])}, {threads}, with {versions}."]


def _linked(paper: Paper, folder: Path) -> str:
    """The rooms that a row uses, with links to their pages of the reference where there are such."""
    reference = folder.parent / "reference"
    return ", ".join(f"[{room}](../reference/{room}.md)" if (reference / f"{room}.md").exists() else room for room in rooms(paper))
