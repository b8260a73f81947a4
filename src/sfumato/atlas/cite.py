"""References in BibTeX: of papers of the atlas, and of the library itself.

Entries are of arXiv's preprints, which every row has; text is written in ASCII, so that any BibTeX reads it.
"""

from __future__ import annotations

import re
import unicodedata

from sfumato.atlas.paper import Paper
from sfumato.atlas.source import find_paper

_AUTHORS = "The sfumato developers"
_TITLE = "sfumato: build, sample, speed up, steer and understand diffusion models"
_YEAR = 2026
_SMALL_WORDS = {"a", "an", "the", "on", "of", "for", "in", "how", "is", "what", "whats", "to", "and", "with", "from", "by", "where"}
_ACCENTS = {
    "\N{COMBINING ACUTE ACCENT}": r"\'",
    "\N{COMBINING GRAVE ACCENT}": r"\`",
    "\N{COMBINING CIRCUMFLEX ACCENT}": r"\^",
    "\N{COMBINING DIAERESIS}": r"\"",
    "\N{COMBINING TILDE}": r"\~",
    "\N{COMBINING CEDILLA}": r"\c ",
    "\N{COMBINING CARON}": r"\v ",
    "\N{COMBINING RING ABOVE}": r"\r ",
}
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "ß": r"{\ss}",
    **{letter: f"{{\\{name}}}" for letter, name in zip("øØłŁæÆ", ("o", "O", "l", "L", "ae", "AE"), strict=True)},
}


def bibtex(*names: str) -> str:
    """The BibTeX entries of rows, by id or slug, and of the library itself where no row is named.

    A paper that two rows measure is one entry; keys are the first author's surname, the year and the title's first word of weight.

    Raises:
        ArgumentError: no row has that name; the nearest names are given.
    """
    if not names:
        return _library()
    cited: dict[str, Paper] = {}
    for name in names:
        paper = find_paper(name)
        cited.setdefault(paper.arxiv, paper)
    return "\n".join(entry(paper, key) for paper, key in _keys(list(cited.values())))


def authors(text: str) -> list[str]:
    """The names in a list such as `A, B and C`; `et al.` becomes BibTeX's `others`."""
    said = re.sub(r",?\s*\bet al\.?\s*$", " and others", text)
    return [name.strip() for name in re.split(r",\s*and\s+|,|\s+and\s+", said) if name.strip()]


def key_of(paper: Paper) -> str:
    """E.g. `song2021score`: one paper's key, before another with the same makes it ambiguous."""
    words = [_plain(word) for word in re.split(r"[\s:]+", paper.title)]
    first = next((word for word in words if word and word not in _SMALL_WORDS), "")
    return f"{_plain(authors(paper.authors)[0].split()[-1])}{paper.year}{first}"


def entry(paper: Paper, key: str) -> str:
    """One `@misc` entry, which ends in a new line."""
    return _entry(
        "misc",
        key,
        title=f"{{{_escape(paper.title)}}}",
        author=" and ".join(_escape(name) for name in authors(paper.authors)),
        year=str(paper.year),
        eprint=paper.arxiv,
        archivePrefix="arXiv",
        url=f"https://arxiv.org/abs/{paper.arxiv}",
    )


def _library() -> str:
    from sfumato import __version__

    return _entry("software", "sfumato", title=f"{{{_TITLE}}}", author=f"{{{_AUTHORS}}}", year=str(_YEAR), version=__version__)


def _keys(papers: list[Paper]) -> list[tuple[Paper, str]]:
    taken: dict[str, int] = {}
    out = []
    for paper in papers:
        key = key_of(paper)
        taken[key] = taken.get(key, 0) + 1
        out.append((paper, key if taken[key] == 1 else f"{key}{'abcdefghijklmnopqrstuvwxyz'[taken[key] - 1]}"))
    return out


def _entry(kind: str, key: str, **fields: str) -> str:
    lines = "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items())
    return f"@{kind}{{{key},\n{lines}}}\n"


def _plain(word: str) -> str:
    return re.sub("[^a-z0-9]", "", unicodedata.normalize("NFKD", word).lower())


def _escape(text: str) -> str:
    return "".join(_ascii(letter) for letter in text)


def _ascii(letter: str) -> str:
    if letter in _SPECIAL:
        return _SPECIAL[letter]
    if letter in "&%$#_{}":
        return f"\\{letter}"
    parts = unicodedata.normalize("NFD", letter)
    return f"{{{_ACCENTS[parts[1]]}{parts[0]}}}" if len(parts) == 2 and parts[1] in _ACCENTS else letter
