"""What a row's file says, read and not run: its paper, the rooms it uses, and a fingerprint of the code that its checks run."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path

from sfumato.atlas.paper import Paper
from sfumato.errors import ArgumentError

_HOME = Path(__file__).parent
_ATLAS = "sfumato.atlas"


@cache
def papers() -> tuple[Paper, ...]:
    """The paper of every row, read from its file: nothing is run, and nothing heavy is imported."""
    names = {f.name for f in fields(Paper)}
    found = []
    for file in sorted(_HOME.glob("*/*.py")):
        module = f"{_ATLAS}.{file.parent.name}.{file.stem}"
        given = _row(_tree(module))
        if given is not None:
            found.append(Paper(**{k.arg: ast.literal_eval(k.value) for k in given.keywords if k.arg in names}, module=module))
    return tuple(sorted(found, key=lambda paper: paper.order))


def find_paper(name: str) -> Paper:
    """The paper whose row has that id or slug.

    Raises:
        ArgumentError: there is none; the nearest names are given.
    """
    import difflib

    wanted = name.strip().lower()
    for paper in papers():
        if wanted in (paper.id.lower(), paper.id.lower().lstrip("0"), paper.slug):
            return paper
    named = [paper.slug for paper in papers() if wanted and wanted in f"{paper.slug} {paper.title}".lower()][:3]
    near = named or difflib.get_close_matches(wanted, [paper.slug for paper in papers()], n=3, cutoff=0.4)
    hint = f"Near it: {', '.join(near)}." if near else "`sfumato atlas list` shows them."
    raise ArgumentError("row", repr(name), "the id or slug of a row", hint)


def file_of(module: str) -> Path:
    """The file of a module of the atlas."""
    return _HOME.joinpath(*module.split(".")[2:]).with_suffix(".py")


def rooms(paper: Paper) -> list[str]:
    """The rooms whose parts a row is put together from: what its module, and the modules of the atlas it builds on, import.

    Nothing is known of a row that lies outside the atlas.
    """
    if not _is_ours(paper.module):
        return []
    found = set()
    for module in [paper.module, *_helpers(paper.module)]:
        found |= {name.split(".")[1] for name in _imports(_tree(module)) if name.count(".")}
    return sorted(name for name in found if (_HOME.parent / name).is_dir() and name != "atlas")


def fingerprint(paper: Paper) -> str:
    """SHA-256 of the code that the checks of a row run and that lies in the atlas, less comments and docstrings.

    What a row says of its paper is not part of it, nor is its figure with what only that needs, nor where names are imported from. A row
    that lies outside the atlas has none.
    """
    return _digest(paper.module, "checks") if _is_ours(paper.module) else ""


def figure_fingerprint(paper: Paper) -> str:
    """The same of the code that draws a row's figure."""
    return _digest(paper.module, "figure")


def _is_ours(module: str) -> bool:
    return module.startswith(f"{_ATLAS}.")


def has_figure(paper: Paper) -> bool:
    """Whether a row draws a picture of its paper."""
    row = _row(_tree(paper.module))
    return row is not None and any(k.arg == "figure" and not isinstance(k.value, ast.Constant) for k in row.keywords)


def _digest(module: str, what: str) -> str:
    out = hashlib.sha256("\n".join(_reached(module, what)).encode())
    for helper in sorted(_helpers(module, _names(module, what))):
        out.update("\n".join(_reached(helper, None)).encode())
    return out.hexdigest()


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(file_of(module).read_text("utf-8"))


def _row(tree: ast.Module) -> ast.Call | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and _defines(node) == {"ROW"}:
            return node.value
    return None


def _imports(tree: ast.Module, names: set[str] | None = None) -> Iterator[str]:
    """What of ours a file imports, or the part of it that some names stand for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "sfumato":
            yield from (f"{node.module}.{a.name}" for a in node.names if names is None or (a.asname or a.name) in names)
        elif isinstance(node, ast.Import):
            ours = [a for a in node.names if a.name.split(".")[0] == "sfumato"]
            yield from (a.name for a in ours if names is None or (a.asname or "sfumato") in names)


def _helpers(module: str, names: set[str] | None = None, known: frozenset[str] = frozenset()) -> set[str]:
    """The modules of the atlas that a row builds on, or that some names in it stand for, other than that of rows themselves."""
    found: set[str] = set()
    for name in _imports(_tree(module), names):
        if not _is_ours(name):
            continue
        for candidate in (name, name.rpartition(".")[0]):
            if candidate != f"{_ATLAS}.row" and candidate not in known | {_ATLAS, module} and file_of(candidate).is_file():
                found |= {candidate, *_helpers(candidate, known=known | found | {module, candidate})}
    return found


def _defines(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}


def _definitions(module: str) -> dict[str, ast.stmt]:
    return {name: node for node in _tree(module).body for name in _defines(node) if name != "ROW"}


def _given(module: str, what: str) -> list[str]:
    """The names in an argument of `ROW`."""
    row = _row(_tree(module))
    return [n.id for k in row.keywords if k.arg == what for n in ast.walk(k.value) if isinstance(n, ast.Name)] if row is not None else []


def _names(module: str, what: str | None) -> set[str]:
    """The names that an argument of `ROW` leads to, those of imports among them; or what other modules may ask for leads to."""
    defined, figure = _definitions(module), set[str]()
    if what != "figure":
        # a check may have a variable of its name
        figure = set(_given(module, "figure"))
    if what:
        todo = _given(module, what)
    else:
        drawn = _names(module, "figure")
        todo = [name for name in defined if not (name in drawn and name.startswith("_"))]
    reached: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in reached | figure:
            reached.add(name)
            todo += [n.id for n in ast.walk(defined[name]) if isinstance(n, ast.Name)] if name in defined else []
    return reached


def _reached(module: str, what: str | None) -> list[str]:
    """The lines of the definitions that an argument of `ROW` leads to, or of all but `ROW` and what only its figure needs."""
    defined = _definitions(module)
    lines = file_of(module).read_text("utf-8").splitlines()
    kept = sorted({i for name in _names(module, what) if name in defined for i in _code_lines(defined[name])})
    return [lines[i].rstrip() for i in kept if lines[i].strip() and not lines[i].strip().startswith("#")]


def _code_lines(node: ast.stmt) -> set[int]:
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
    kept = set(range(first - 1, node.end_lineno or first))
    for part in ast.walk(node):
        if isinstance(part, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(part, clean=False) is not None:
            told = part.body[0]
            kept -= set(range(told.lineno - 1, told.end_lineno or told.lineno))
    return kept
