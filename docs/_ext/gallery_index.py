"""The index of the gallery: every row in the list of its family, and a form that narrows the lists down."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from gallery_page import VERDICTS, Finding, badge, raw

from sfumato.atlas import Paper, rooms


def index_page(found: Sequence[Finding], address: Callable[[Paper], str]) -> str:
    """The page, as Markdown; `address` says where the page of a paper is, seen from here."""
    families = list(dict.fromkeys(finding.paper.family for finding in found))
    verdicts = Counter(finding.paper.reproduced for finding in found)
    checks, controls = (sum(finding.count(kind) for finding in found) for kind in ("checks", "controls"))
    told = ", ".join(f"{verdicts[name]} {text}" for name, text in VERDICTS.items())
    parts = [
        "# Gallery",
        f"{len(found)} papers, each with its claim, the checks that measure it and the controls that must fail: {told}. {checks} checks "
        f"and {controls} controls in all. What counts is the claim at our scale, on exact worlds and small data; where it does not hold, "
        "or was not measured, the row says so.",
        raw(_form(families, sorted({room for finding in found for room in rooms(finding.paper)}))),
    ]
    for family in families:
        cards = "\n".join(_card(finding, address(finding.paper)) for finding in found if finding.paper.family == family)
        parts += [f"## {family.capitalize()}", raw(f'<ul class="gallery-rows">\n{cards}\n</ul>')]
    entries = "\n".join(f"{finding.paper.slug} <{finding.paper.slug}>" for finding in found)
    return "\n\n".join([*parts, f"```{{toctree}}\n:hidden:\n\n{entries}\n```"]) + "\n"


def _form(families: Iterable[str], used: Iterable[str]) -> str:
    """Hidden until the script that makes it work shows it."""
    choices = [("family", "Family", {name: name for name in families}), ("room", "Room", {name: name for name in used})]
    choices.append(("verdict", "Claim", VERDICTS))
    selects = "".join(
        f'<label>{label} <select name="{name}"><option value="">any</option>'
        + "".join(f'<option value="{value}">{text}</option>' for value, text in options.items())
        + "</select></label>"
        for name, label, options in choices
    )
    return (
        '<form class="gallery-filter" role="search" aria-label="rows of the gallery" hidden>'
        '<label class="words">Search <input type="search" name="q" placeholder="a paper, an author, a word of a claim" autocomplete="off">'
        f'</label>{selects}<output aria-live="polite"></output><button type="reset">Clear</button></form>'
    )


def _card(finding: Finding, address: str) -> str:
    paper, used = finding.paper, rooms(finding.paper)
    counts = f"{finding.count('checks')} checks, {finding.count('controls')} controls" if finding.entry is not None else "not measured"
    stale = "" if not finding.problem or finding.entry is None else ", code changed since"
    return (
        f'<li data-family="{paper.family}" data-room="{" ".join(used)}" data-verdict="{paper.reproduced}">'
        f'<p class="row-title"><a href="{html.escape(address)}">{html.escape(paper.title)}</a> {badge(paper)}</p>'
        f'<p class="row-facts">{paper.id} <code>{paper.slug}</code> · {html.escape(paper.authors)} · {paper.year} · arXiv {paper.arxiv}</p>'
        f'<p class="row-claim">{html.escape(paper.claim)}</p>'
        f'<p class="row-facts">{counts}{stale} · {", ".join(used)}</p></li>'
    )
