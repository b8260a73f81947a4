"""A docstring of the library as Markdown: its prose, its displayed lines as they are, its sections as definitions."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

SECTION = re.compile(r"(Arguments|Returns|Raises|Yields|Fields):$")
ITEM = re.compile(r"([*\w][\w*.]*(?:, [*\w][\w*.]*)*): (.*)")


def markdown(doc: str) -> str:
    """The whole docstring."""
    return "\n\n".join(_blocks(inspect.cleandoc(doc).split("\n")))


def first_sentence(doc: str) -> str:
    """Its first paragraph up to the first full stop that ends a sentence, as Markdown."""
    paragraph = " ".join(inspect.cleandoc(doc).split("\n\n")[0].split())
    return _prose(re.split(r"(?<=[.?!]) (?=[A-Z`])", paragraph)[0])


def _blocks(lines: list[str]) -> Iterator[str]:
    """Sections, displayed blocks and paragraphs, in their order."""
    at = 0
    while at < len(lines):
        end = at + 1
        if SECTION.match(lines[at]):
            while end < len(lines) and (not lines[end] or lines[end].startswith(" ")):
                end += 1
            yield f"**{lines[at].rstrip(':')}**\n\n" + _section(inspect.cleandoc("\n".join(["", *lines[at + 1 : end]])))
        elif lines[at].startswith(" "):
            while end < len(lines) and (lines[end].startswith(" ") or (not lines[end] and _indented(lines, end + 1))):
                end += 1
            yield _displayed(lines[at:end])
        elif lines[at].startswith(">>>"):
            while end < len(lines) and lines[end]:
                end += 1
            yield "```pycon\n" + "\n".join(lines[at:end]) + "\n```"
        elif lines[at]:
            item = lines[at].startswith("- ")
            while end < len(lines) and lines[end] and (item or not lines[end].startswith(" ")) and not SECTION.match(lines[end]):
                end += 1
            yield _prose("\n".join(lines[at:end]))
        at = end


def _indented(lines: list[str], at: int) -> bool:
    return at < len(lines) and lines[at].startswith(" ")


def _displayed(lines: list[str]) -> str:
    text = inspect.cleandoc("\n".join(["", *lines]))
    language = "pycon" if text.startswith(">>>") else "text"
    return f"```{language}\n{text}\n```"


def _section(text: str) -> str:
    """Items `name, other: what it is`, with what follows them indented; a section without items is prose."""
    if not ITEM.match(text):
        return "\n\n".join(_blocks(text.split("\n")))
    items = []
    for part in re.split(r"\n(?=[*\w])", text):
        found = ITEM.match(part)
        if found is None:
            raise ValueError(f"neither an item nor the rest of one: {part!r}")
        names = ", ".join(f"`{name}`" for name in found.group(1).split(", "))
        body = re.sub(r"(?m)^ {4}", "", f"{found.group(2)}{part[found.end() :]}")
        items.append(f"{names}\n: " + "\n\n".join(_blocks(body.split("\n"))).replace("\n", "\n  "))
    return "\n\n".join(items)


def _prose(text: str) -> str:
    """What Markdown would read as markup outside code is escaped; code and `*emphasis*` stay."""
    parts = re.split(r"(`[^`]+`)", text)
    parts[::2] = [re.sub(r"\\|[<\[\]$~|]|\*(?!\w[^*\n]*\w\*)(?<!\w\*)|(?<!\w)_|_(?!\w)", lambda m: "\\" + m.group(), p) for p in parts[::2]]
    return "".join(parts)
