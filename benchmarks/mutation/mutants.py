"""The faults: one small change of one expression, addressed by the function it is in and not by its line.

The change is made in the text of the file, line count kept, so that whatever compiles the file compiles the mutant.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "src" / "sfumato"
ROOMS = ("noise", "exact", "sample")

_OPERATORS = {
    ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.Div,), ast.Div: (ast.Mult,), ast.Pow: (ast.Mult,), ast.FloorDiv: (ast.Div,),
    ast.Mod: (ast.Mult,), ast.Lt: (ast.LtE,), ast.LtE: (ast.Lt,), ast.Gt: (ast.GtE,), ast.GtE: (ast.Gt,), ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,), ast.And: (ast.Or,), ast.Or: (ast.And,),
}  # fmt: skip
_SIGNS = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**", ast.FloorDiv: "//", ast.Mod: "%", ast.Lt: "<", ast.LtE: "<=",
    ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=", ast.And: "and", ast.Or: "or",
}  # fmt: skip
_SWAPPED = {
    "min": "max", "max": "min", "amin": "amax", "amax": "amin", "minimum": "maximum", "maximum": "minimum", "sin": "cos", "cos": "sin",
    "argmin": "argmax", "argmax": "argmin", "cummin": "cummax", "cummax": "cummin",
}  # fmt: skip
_DROPPED = {"exp", "expm1", "sqrt", "rsqrt", "log", "log1p", "abs", "square"}
_LIBRARIES = {"torch", "math", "np", "numpy", "F", "special"}
_SHOWN = ("__repr__", "__str__", "plot", "draw", "_plot", "_draw", "__format__")


@dataclass(frozen=True)
class Mutant:
    """One fault: the bytes `[start, stop)` of a file become `text`.

    `identity` is `file::qualified name::operator::ordinal`; `function` is the outermost function's `(qualified name, first line)`, None for
    code that runs on import; `line` and `place` are the statement's line and its number in the file; `default` says that the fault is in a
    default argument of `function`.
    """

    identity: str
    file: str
    line: int
    place: int
    start: int
    stop: int
    text: bytes
    function: tuple[str, int] | None
    default: bool = False

    def source(self, package: Path = PACKAGE) -> bytes:
        """The text of the file with the fault in."""
        given = (package / self.file).read_bytes()
        return given[: self.start] + self.text + given[self.stop :]

    def difference(self, package: Path = PACKAGE) -> str:
        """The expression as it was and as it is."""
        given = (package / self.file).read_bytes()[self.start : self.stop]
        return f"{' '.join(given.decode().split())}  ->  {' '.join(self.text.decode().split())}"


def mutants(file: str, package: Path = PACKAGE) -> list[Mutant]:
    """All mutants of a file, named relative to the package, in the order of the text."""
    walk = _Walk(file, (package / file).read_bytes())
    return list(walk.found())


def files(rooms: tuple[str, ...] = ROOMS, package: Path = PACKAGE) -> list[str]:
    """The files of the rooms, relative to the package."""
    return sorted(path.relative_to(package).as_posix() for room in rooms for path in (package / room).rglob("*.py"))


def statements(tree: ast.AST) -> Iterator[ast.stmt]:
    """The statements of a module that do something, in a fixed order: their numbers survive a change of comments and docstrings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            yield node


class _Walk:
    """Walks a module with what is around a node: qualified name, outermost function, statement."""

    def __init__(self, file: str, source: bytes) -> None:
        self.file, self.source, self.tree = file, source, ast.parse(source)
        self.places = {statement: place for place, statement in enumerate(statements(self.tree))}
        self.seen: Counter[tuple[str, str]] = Counter()

    @cached_property
    def lines(self) -> list[int]:
        starts = [0]
        for line in self.source.splitlines(keepends=True):
            starts.append(starts[-1] + len(line))
        return starts

    def found(self) -> Iterator[Mutant]:
        yield from self._body(self.tree.body, (), None)

    def _body(self, body: list[ast.stmt], names: tuple[str, ...], outer: tuple[str, int] | None) -> Iterator[Mutant]:
        for statement in body:
            yield from self._statement(statement, names, outer)

    def _statement(self, node: ast.stmt, names: tuple[str, ...], outer: tuple[str, int] | None) -> Iterator[Mutant]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from self._function(node, names, outer)
        elif isinstance(node, ast.ClassDef):
            yield from self._body(node.body, (*names, node.name), outer)
        elif not (_silent(node) or _is_all(node)):
            if isinstance(node, ast.AugAssign) and type(node.op) in _OPERATORS:
                yield self._augmented(node, names, outer)
            for name, value in ast.iter_fields(node):
                if name == "annotation":
                    continue
                for child in value if isinstance(value, list) else [value]:
                    if isinstance(child, ast.expr | ast.withitem):
                        yield from self._expression(child, node, names, outer, False)
            for block in ("body", "orelse", "finalbody"):
                yield from self._body(getattr(node, block, []), names, outer)
            for part in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
                yield from self._body(part.body, names, outer)

    def _function(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef, names: tuple[str, ...], outer: tuple[str, int] | None
    ) -> Iterator[Mutant]:
        if node.name in _SHOWN:
            return
        inside = (*names, node.name)
        first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
        whole = outer or (".".join(inside), first)
        for default in [*node.args.defaults, *(d for d in node.args.kw_defaults if d is not None)]:
            yield from self._expression(default, node, inside, whole, outer is None)
        yield from self._body(node.body, (*inside, "<locals>"), whole)

    def _expression(
        self, node: ast.AST, statement: ast.stmt, names: tuple[str, ...], outer: tuple[str, int] | None, default: bool
    ) -> Iterator[Mutant]:
        if isinstance(node, ast.JoinedStr) or _typed(node):
            return
        for label, place, text in _changes(node):
            yield self._mutant(label, place, text, statement, names, outer, default)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.keyword) and child.arg in ("dim", "axis") and ast.unparse(child.value) in ("0", "-1"):
                yield self._mutant("axis", child.value, _axis(child.value), statement, names, outer, default)
            else:
                yield from self._expression(child, statement, names, outer, default)

    def _augmented(self, node: ast.AugAssign, names: tuple[str, ...], outer: tuple[str, int] | None) -> Mutant:
        other = copy.copy(node)
        other.op = _OPERATORS[type(node.op)][0]()
        label = f"{_SIGNS[type(node.op)]}= to {_SIGNS[type(other.op)]}="
        lost = (node.end_lineno or node.lineno) - node.lineno
        return self._mutant(label, node, ast.unparse(other) + "\n" * lost, node, names, outer, False, wrap=False)

    def _mutant(
        self,
        label: str,
        node: ast.AST,
        text: str,
        statement: ast.stmt,
        names: tuple[str, ...],
        outer: tuple[str, int] | None,
        default: bool,
        wrap: bool = True,
    ) -> Mutant:
        where = ".".join(name for name in names if name != "<locals>") or "<module>"
        self.seen[where, label] += 1
        start = self.lines[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
        stop = self.lines[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]
        if wrap:
            text = "(" + text + "\n" * self.source.count(b"\n", start, stop) + ")"
        identity = f"{self.file}::{where}::{label}::{self.seen[where, label]}"
        return Mutant(identity, self.file, statement.lineno, self.places[statement], start, stop, text.encode(), outer, default)


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST, str]]:
    """What one node can become: a label that names the operator, the node to replace, and the text to put there."""
    match node:
        case ast.BinOp(op=op) if type(op) in _OPERATORS and not (_text(node.left) or _text(node.right)):
            yield from _replaced(node, "op", [(f"{_SIGNS[type(op)]} to {_SIGNS[o]}", o()) for o in _OPERATORS[type(op)]])
        case ast.BoolOp(op=op):
            yield from _replaced(node, "op", [(f"{_SIGNS[type(op)]} to {_SIGNS[o]}", o()) for o in _OPERATORS[type(op)]])
        case ast.UnaryOp(op=ast.USub()):
            yield "drop minus", node, ast.unparse(node.operand)
        case ast.UnaryOp(op=ast.Not()):
            yield "drop not", node, ast.unparse(node.operand)
        case ast.Compare(ops=ops):
            for i, op in enumerate(ops):
                for other in _OPERATORS.get(type(op), ()):
                    yield from _replaced(node, "ops", [(f"{_SIGNS[type(op)]} to {_SIGNS[other]}", [*ops[:i], other(), *ops[i + 1 :]])])
        case ast.Constant(value=float(value)):
            for label, changed in (("sign", -value), ("scale", 1.1 * value)) if value else (("constant", 1.0),):
                yield f"{label} of float", node, repr(changed)
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            yield f"{'01'[value] if value in (0, 1) else 'n'} to next", node, repr(value + 1)
        case ast.keyword(value=ast.Constant(value=bool(value))):
            yield f"{value} to {not value}", node.value, repr(not value)
        case ast.Call():
            yield from _calls(node)


def _calls(node: ast.Call) -> Iterator[tuple[str, ast.AST, str]]:
    function = node.func
    name = function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    library = isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id in _LIBRARIES
    if name in _SWAPPED:
        other = copy.copy(function)
        setattr(other, "attr" if isinstance(function, ast.Attribute) else "id", _SWAPPED[name])
        yield from _replaced(node, "func", [(f"{name} to {_SWAPPED[name]}", other)])
    if name in _DROPPED and isinstance(function, ast.Attribute) and (library or not node.args):
        yield f"drop {name}", node, ast.unparse(node.args[0] if library else function.value)
    if name == "where" and len(node.args) == 3:
        yield from _replaced(node, "args", [("swap where", [node.args[0], node.args[2], node.args[1]])])
    ends = {k.arg: k for k in node.keywords}
    if name in ("clamp", "clamp_", "clip") and len({"min", "max"} & ends.keys()) == 1:
        turned = [ast.keyword({"min": "max", "max": "min"}.get(k.arg or "", k.arg), k.value) for k in node.keywords]
        yield from _replaced(node, "keywords", [("swap clamp", turned)])


def _replaced(node: ast.expr, field: str, others: list[tuple[str, object]]) -> Iterator[tuple[str, ast.AST, str]]:
    for label, value in others:
        other = copy.copy(node)
        setattr(other, field, value)
        yield label, node, ast.unparse(other)


def _axis(node: ast.expr) -> str:
    return "-1" if ast.unparse(node) == "0" else "0"


def _text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _typed(node: ast.AST) -> bool:
    """Whether a subscript is a type, such as `Float[Tensor, "..."]`, and not a value."""
    return (
        isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id[:1].isupper() and not node.value.id.isupper()
    )


def _silent(node: ast.stmt) -> bool:
    """Statements that say something and compute nothing: errors, warnings, assertions for the type checker, imports, docstrings."""
    match node:
        case ast.Raise() | ast.Import() | ast.ImportFrom() | ast.Assert():
            return True
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr="warn"))):
            return True
    return False


def _is_all(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)
