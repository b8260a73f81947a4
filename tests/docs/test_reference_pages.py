"""The reference, which is made from the live package: every public name has an entry, and an entry says what the docstring says."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest

import sfumato

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs" / "_ext"))
import docstrings  # noqa: E402
import reference  # noqa: E402

SOURCE = re.compile(r"arXiv|et al\.|eqs?\. ?\(?\d")


@pytest.fixture(scope="module")
def rooms():
    return reference.rooms()


@pytest.fixture(scope="module")
def pages(rooms):
    public = {entry.thing for room in rooms for entry in room.entries if isinstance(entry.thing, type)}
    return {room.name: reference.page(room, public) for room in rooms}


def packages():
    """Found without the generator: every folder of the package that says in `__all__` what of it is public."""
    files = sorted(Path(sfumato.__file__).parent.rglob("__init__.py"))
    return [".".join(f.parent.relative_to(ROOT / "src").parts) for f in files if re.search(r"^__all__\b", f.read_text(), re.MULTILINE)]


def test_every_public_name_has_an_entry_that_says_something(rooms):
    entries = {(entry.module, entry.name): entry for room in rooms for entry in room.entries}
    things = {id(entry.thing) for entry in entries.values()}
    names = [(package, name) for package in packages() for name in importlib.import_module(package).__all__]
    assert len(names) > 600
    for package, name in names:
        assert id(getattr(importlib.import_module(package), name)) in things, f"{package}.{name} has no entry"
    for (package, name), entry in entries.items():
        assert len(entry.doc.split()) >= 2, f"{package}.{name} has no docstring"


def test_every_entry_is_on_its_page_once(rooms, pages):
    for room in rooms:
        found = re.findall(r"^`{6}\{py:(?:class|function|data)\} (\w+).*\n:module: (\S+)", pages[room.name], re.MULTILINE)
        assert sorted(found) == sorted((entry.name, entry.module) for entry in room.entries)


def words(text):
    """What is left of a text without its markup: fences, quotes, escapes and the order of section heads do not count."""
    return re.findall(r"\w+", re.sub(r"```\w*", " ", text))


def test_an_entry_loses_no_word_of_its_docstring(rooms):
    for room in rooms:
        for entry in room.entries:
            assert words(docstrings.markdown(entry.doc)) == words(entry.doc), f"{entry.module}.{entry.name}"


def test_a_source_that_a_docstring_states_is_on_the_page(rooms, pages):
    """Docstrings of the names, and of the modules that they are in."""
    count = 0
    for room in rooms:
        page = " ".join(pages[room.name].replace("\\", "").split())
        stated = [entry.doc for entry in room.entries] + [importlib.import_module(home).__doc__ for home in {e.home for e in room.entries}]
        for line in (line for doc in stated for line in doc.splitlines() if SOURCE.search(line)):
            count += 1
            # an item of a section is set anew: its name becomes a term
            text = " ".join(line.replace("\\", "").strip().rpartition(": ")[2].split())
            assert text in page, f"{room.module}: {line}"
    assert count > 50


def test_every_command_has_its_options():
    page = reference.command_line()
    for command, option in [
        ("tune", "--tolerance <number>"),
        ("sample", "--seed <number>"),
        ("atlas run", "ROW"),
        ("explain", "--only <text>"),
    ]:
        section = page.split(f"## sfumato {command}\n")[1].split("\n## ")[0]
        assert f"{{option}} {option}" in section


SAMPLE = """First line with `code <T>` and x_t * y_t < 1, *meant*.

    x_s = a x_t

Arguments:
    x, y: two things,
        on two lines.
    n: how many; the formula is

            n > 0

        and no more.

Raises:
    ShapeError, ArgumentError: if not $.
"""

EXPECTED = """First line with `code <T>` and x_t \\* y_t \\< 1, *meant*.

```text
x_s = a x_t
```

**Arguments**

`x`, `y`
: two things,
  on two lines.

`n`
: how many; the formula is
  \n  ```text
  n > 0
  ```
  \n  and no more.

**Raises**

`ShapeError`, `ArgumentError`
: if not \\$."""


def test_a_docstring_becomes_markdown():
    assert docstrings.markdown(SAMPLE) == EXPECTED


def test_a_section_that_is_no_list_of_items_is_refused():
    with pytest.raises(ValueError, match="neither an item"):
        docstrings.markdown("First.\n\nArguments:\n    x: one.\n    and then prose\n")
