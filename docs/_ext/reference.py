"""The reference, made from the live package: one page for each room, one entry for each name that it makes public.

A room's public names are those of its `__all__`, or, if it is a single file, all that it does not hide. Deeper modules that say in
`__all__` what of them is public, and names that the pages import from deeper modules, are added under these modules.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from command_line import command_line
from docstrings import first_sentence, markdown
from entries import Entry, entry_of, render
from sources import exports, modules, tree, written

DOCS = Path(__file__).parents[1]
# what serves the command line alone is described by its commands
COMMAND_LINE = ("cli", "subjects")


@dataclass(frozen=True)
class Room:
    """A page of the reference."""

    module: str
    doc: str
    entries: list[Entry]
    also: list[Entry]  # importable from here, with an entry in another room

    @property
    def name(self) -> str:
        """The page's name: `sample`."""
        return self.module.rpartition(".")[2]


@cache
def rooms() -> list[Room]:
    """Every room that users import from, in the order in which knowledge flows: that of the import contract."""
    layers = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
    names = [name for layer in reversed(layers) for name in re.findall(r"sfumato\.\w+", layer) if name[8:] not in COMMAND_LINE]
    found: list[Room] = []
    known: dict[tuple[str, int], Entry] = {}
    for name in ["sfumato", *names]:
        if importlib.util.find_spec(name) is None:
            continue
        here = {(e.name, id(e.thing)): e for e in reversed(list(_entries(name)))}
        own = [entry for key, entry in here.items() if key not in known]
        also = [known[key] for key in sorted(here) if key in known]
        known |= {(e.name, id(e.thing)): e for e in own}
        if own:
            own.sort(key=lambda e: (e.home.count(".") > name.count(".") + 1, e.home, e.line))
            found.append(Room(name, importlib.import_module(name).__doc__ or "", own, also))
    return found


def _entries(room: str) -> Iterator[Entry]:
    asked = names_imported_by_pages()
    for path in [room] if room == "sfumato" else modules(room):
        names = asked.get(path, set()) & set(public_names(path))
        if exports(path) or path == room:
            names = set(public_names(path))
        for name in sorted(names):
            yield entry_of(importlib.import_module(path), name)


def public_names(module: str) -> list[str]:
    """`__all__`, or what a file without it defines and does not hide: functions, classes, and constants with a docstring."""
    if exports(module):
        return list(importlib.import_module(module).__all__)
    return [name for name, what in written(module).items() if what.doc and not name.startswith("_")]


def names_imported_by_pages() -> dict[str, set[str]]:
    """Module to names, of every `from sfumato.x.y import z` on a written page."""
    found: dict[str, set[str]] = {}
    pages = [
        DOCS.parent / "README.md",
        *(p for p in DOCS.rglob("*.md") if p.relative_to(DOCS).parts[0] not in {"_build", "reference", "gallery"}),
    ]
    for page in pages:
        for module, names in re.findall(r"^from (sfumato\.[\w.]+) import ([\w, ]+)$", page.read_text(), re.MULTILINE):
            found.setdefault(module, set()).update(name.split(" as ")[0].strip() for name in names.split(","))
    return found


def page(room: Room, public: set[type]) -> str:
    """The room's page."""
    parts = [f"# {room.name}", f"```{{py:module}} {room.module}\n```", markdown(room.doc), _contents(room), _also(room)]
    open_folder = room.module
    for home, entries in groupby(room.entries, lambda entry: entry.home):
        folder, _, file = home.rpartition(".")
        if home != room.module:
            if folder not in (open_folder, room.module):
                parts += [f"## {folder.removeprefix(room.module + '.')}", markdown(_docstring(folder))]
            open_folder = folder
            level = "##" if folder == room.module else "###"
            parts += [f"{level} {file.replace('_', ' ')}", f"`{home.replace('.', '/')}`", markdown(_docstring(home))]
        parts += [render(entry, public) for entry in entries]
    return "\n\n".join(parts) + "\n"


def _contents(room: Room) -> str:
    """The names of a room of several files, by file."""
    if {entry.home for entry in room.entries} == {room.module}:
        return ""
    lines = ["| file | names |", "|---|---|"]
    for home, entries in groupby(room.entries, lambda entry: entry.home):
        names = ", ".join(f"{{py:obj}}`{entry.name} <{entry.module}.{entry.name}>`" for entry in entries)
        lines.append(f"| {home.removeprefix(room.module + '.').replace('.', ' / ').replace('_', ' ')} | {names} |")
    return "\n".join(lines)


def _also(room: Room) -> str:
    names = ", ".join(f"`{entry.module}.{entry.name}`" for entry in room.also)
    return f"Importable from here too: {names}." if names else ""


def _docstring(module: str) -> str:
    return ast.get_docstring(tree(module)) or ""


def index(found: list[Room]) -> str:
    """The list of the rooms."""
    lines = [
        "# Reference",
        "Every public name, in the order in which knowledge flows: a room knows only the rooms above it. All names by letter are in the "
        "{ref}`index <genindex>`; a name in code style is a link to its entry, and `[source]` beside an entry leads to the code.",
        "| room | names | what is in it |\n|---|---:|---|\n"
        + "\n".join(f"| [`{r.module}`]({r.name}.md) | {len(r.entries)} | {first_sentence(r.doc)} |" for r in found)
        + "\n| [`sfumato`, the command](command_line.md) | | The command line |",
        "```{toctree}\n:hidden:\n\n" + "\n".join(r.name for r in found) + "\ncommand_line\n```",
    ]
    return "\n\n".join(lines) + "\n"


def write(app: Any) -> None:
    """Write all pages; what is as it was is left alone, so that it is not read again."""
    found = rooms()
    public = {entry.thing for room in found for entry in room.entries if isinstance(entry.thing, type)}
    pages = {f"{room.name}.md": page(room, public) for room in found} | {"index.md": index(found), "command_line.md": command_line()}
    folder = Path(app.srcdir) / "reference"
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.md"):
        if path.name not in pages:
            path.unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def setup(app: Any) -> dict[str, Any]:
    """Write the pages before Sphinx looks for them."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
