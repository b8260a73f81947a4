"""What the library says of its names in its files: the module and line where each is written, docstrings of constants and fields."""

from __future__ import annotations

import ast
import importlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import sfumato

PACKAGE = Path(sfumato.__file__).parent


@dataclass(frozen=True)
class Written:
    """A name at the top of a module, or a field of a class."""

    line: int
    doc: str  # of what has no `__doc__` of its own
    assigned: bool


def modules(under: str) -> list[str]:
    """Every module below a package, itself included, by file."""
    root = PACKAGE.joinpath(*under.split(".")[1:])
    files = sorted(root.rglob("*.py")) if root.is_dir() else [root.with_suffix(".py")]
    return [".".join(f.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__") for f in files]


@cache
def tree(module: str) -> ast.Module:
    """The module's syntax tree."""
    path = PACKAGE.parent.joinpath(*module.split("."))
    return ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text())


@cache
def written(module: str) -> dict[str, Written]:
    """The names that a module defines itself."""
    return _names(tree(module).body)


@cache
def fields(module: str, name: str) -> dict[str, str]:
    """The fields of a class that have a docstring below them."""
    node = next(n for n in tree(module).body if isinstance(n, ast.ClassDef) and n.name == name)
    return {field: what.doc for field, what in _names(node.body).items() if what.assigned and what.doc}


def exports(module: str) -> bool:
    """Whether a module says in `__all__` what of it is public."""
    return "__all__" in written(module)


def home(name: str, thing: object, room: str) -> str:
    """The module that defines a public name."""
    module = getattr(thing, "__module__", None) or ""
    if module.startswith("sfumato") and name in written(module) and not written(module)[name].assigned:
        return module
    for candidate in [*modules(room), *modules("sfumato")]:
        if name in written(candidate) and getattr(importlib.import_module(candidate), name) is thing:
            return candidate
    raise LookupError(f"no module of sfumato defines {name} of {room}")


def _names(body: list[ast.stmt]) -> dict[str, Written]:
    found = {}
    for node, after in zip(body, [*body[1:], None], strict=True):
        doc = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found[node.name] = Written(node.lineno, ast.get_docstring(node) or "", False)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    found[target.id] = Written(node.lineno, doc if isinstance(doc, str) else "", True)
    return found
