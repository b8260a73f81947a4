"""Reading a page: its code blocks, what is said of each in the comment before it, and running them as a reader would.

A block is code in a fence. A comment right before it may say

    <!-- not run: REASON -->       why it is not run here; a Python block must still parse, and its imports work
    <!-- given: model, photos/ --> what a page may take as known: Python names, and folders by their name with a slash (`given.py`);
                                   `x = y` gives what is called `y` there under the name `x`

Python blocks of a page share one namespace, in order; functions called `test_...` are run too. A block of `text` right after a Python block
is what that block prints. In a block of `sh` every line is a command of `sfumato`, run in small.
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"(?P<marks>(?:<!--[^>]*-->\n+)*)^```(?P<language>[^\n]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- (not run|given): ?(.*?) ?-->", re.DOTALL)
_SILENT = ("bibtex", "json", "mermaid")
"""Languages that nothing is run of; nor of directives, `{toctree}`."""


@dataclass(frozen=True)
class Block:
    """One block: its language, its code, why it is not run, what it takes as given, and the line it starts at."""

    language: str
    code: str
    not_run: str | None
    given: tuple[str, ...]
    line: int


def blocks(page: str) -> Iterator[Block]:
    """The blocks of a page, in order."""
    for found in _FENCE.finditer(page):
        marks = dict(_MARK.findall(found["marks"]))
        given = tuple(name.strip() for name in marks.get("given", "").split(",") if name.strip())
        line = page.count("\n", 0, found.start("code")) + 1
        yield Block(found["language"], found["code"], marks.get("not run"), given, line)


def run_page(page: Path, given: Callable[[str], object], sfumato: Callable[[list[str]], int]) -> list[str]:
    """Run a page's blocks; returns what was run, for those who want to know that something was.

    Arguments:
        given: makes what a block takes as known, by its name.
        sfumato: runs a command and returns its exit code.
    """
    # dataclasses look their module up
    names: dict[str, object] = {"__name__": "__main__"}
    ran, printed = [], None
    for block in blocks(page.read_text()):
        place = f"{page.name}:{block.line}"
        for name, _, kind in (entry.partition(" = ") for entry in block.given):
            if (made := given(kind or name)) is not None:
                names[name] = made
        if block.language == "text" and block.not_run is None:
            assert printed is not None, f"{place}: text that no Python block before it prints; say why it is here in a comment"
            assert printed.rstrip() == block.code.rstrip(), f"{place}: what the block before it prints is\n{printed}"
        elif block.language == "sh" and block.not_run is None:
            for command in commands(block.code):
                assert command[0] == "sfumato", f"{place}: not a command of sfumato; mark the block: {shlex.join(command)}"
                assert sfumato(command[1:]) == 0, f"{place}: {shlex.join(command)}"
                ran.append(shlex.join(command))
        elif block.language == "python":
            printed = run_python(block, place, names)
            ran += [place] * (block.not_run is None)
            continue
        else:
            silent = block.language in _SILENT or block.language.startswith("{")
            assert block.not_run is not None or silent, f"{place}: a block of {block.language or 'no language'}"
        printed = None
    for name, test in list(names.items()):
        if name.startswith("test_") and callable(test):
            test()
    return ran


def run_python(block: Block, place: str, names: dict[str, object]) -> str:
    """What a Python block prints; of one that is not run only the imports are."""
    # lines that say where they are on the page, if they fail
    tree = ast.increment_lineno(ast.parse(block.code), block.line - 1)
    if block.not_run is not None:
        tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(tree, place, "exec"), names)
    return out.getvalue()


def commands(code: str) -> Iterator[list[str]]:
    """The commands of a block of `sh`, without comments; a backslash carries a command on."""
    for line in code.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words
