"""How a fault gets into a process: in place, where the function already exists, or on import, where it is code of a module or a class.

In place, the mutated text is compiled by the loader of the module itself, and every function object that holds the old code gets the new
one: what wraps it, binds it or was imported elsewhere calls through to that object.
"""

from __future__ import annotations

import ast
import gc
import importlib
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

from benchmarks.mutation.mutants import Mutant

Key = tuple[str, str, int]


class Index:
    """Every function of the package that exists now, by file, qualified name and first line."""

    def __init__(self, package: Path) -> None:
        self.package, self.functions = package, dict[Key, list[FunctionType]]()
        for thing in gc.get_objects():
            if isinstance(thing, FunctionType) and thing.__code__.co_filename.startswith(str(package)):
                self.functions.setdefault(_key(thing.__code__), []).append(thing)

    def put(self, mutant: Mutant) -> bool:
        """Put the fault in place; False where it is code that has already run, or a function that nobody holds."""
        module, path = self._module(mutant.file), str(self.package / mutant.file)
        if module is None:
            return False
        if mutant.function is None:
            return _reassign(module, mutant, self.package)
        held = self.functions.get((path, *mutant.function), [])
        if not held or not isinstance(loader := module.__loader__, SourceFileLoader):
            return False
        compiled = loader.source_to_code(mutant.source(self.package), path)
        code = next((c for c in _codes(compiled) if _key(c) == (path, *mutant.function)), None)
        if code is None or any(len(code.co_freevars) != len(f.__code__.co_freevars) for f in held):
            return False
        if mutant.default:
            return _defaults(held, mutant, self.package)
        for function in held:
            function.__code__ = code
        return True

    def _module(self, file: str) -> ModuleType | None:
        return sys.modules.get(module_name(file, self.package))


def module_name(file: str, package: Path) -> str:
    """`noise/process.py` is `sfumato.noise.process`."""
    return ".".join((package.name, *Path(file).with_suffix("").parts)).removesuffix(".__init__")


def read_as(change: Callable[[str, bytes], bytes | None]) -> None:
    """From now on a source file is imported as `change(path, text)`, and not from its cache, wherever that is not None."""
    read, stats = SourceFileLoader.get_data, SourceFileLoader.path_stats

    def get_data(self: SourceFileLoader, path: str) -> bytes:
        data = read(self, path)
        return data if not path.endswith(".py") or (changed := change(path, data)) is None else changed

    def path_stats(self: SourceFileLoader, path: str) -> object:
        if change(path, Path(path).read_bytes()) is not None:
            raise OSError("its cache is of the file as it is on disk")
        return stats(self, path)

    SourceFileLoader.get_data = get_data  # type: ignore[method-assign]
    SourceFileLoader.path_stats = path_stats  # type: ignore[assignment, method-assign]


def import_all(package: Path, rooms: Iterator[str] | tuple[str, ...]) -> None:
    """Import every module of the rooms."""
    for room in rooms:
        for path in sorted((package / room).rglob("*.py")):
            importlib.import_module(module_name(path.relative_to(package).as_posix(), package))


def _key(code: CodeType) -> Key:
    return code.co_filename, code.co_qualname, code.co_firstlineno


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _reassign(module: ModuleType, mutant: Mutant, package: Path) -> bool:
    """Compute one assignment of a module anew, and give the names their new values wherever they were imported."""
    tree = ast.parse(mutant.source(package))
    statement = next((s for s in tree.body if s.lineno <= mutant.line <= (s.end_lineno or s.lineno)), None)
    if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
        return False
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    if not all(isinstance(target, ast.Name) for target in targets):
        return False
    value = eval(compile(ast.Expression(statement.value), str(package / mutant.file), "eval"), vars(module))
    for name in (target.id for target in targets if isinstance(target, ast.Name)):
        old = getattr(module, name)
        for other in [m for n, m in sys.modules.items() if n.startswith((package.name, "test_"))]:
            for held, thing in list(vars(other).items()):
                if thing is old and (other is module or not isinstance(old, int | float | str | bool) or held == name):
                    setattr(other, held, value)
    return True


def _defaults(held: list[FunctionType], mutant: Mutant, package: Path) -> bool:
    """Compute the defaults of a function anew, from the mutated text of its signature."""
    qualified, first = mutant.function or ("", 0)
    tree = ast.parse(mutant.source(package))
    found = [
        n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and min([n.lineno, *(d.lineno for d in n.decorator_list)]) == first
    ]
    node = next(n for n in found if n.name == qualified.rpartition(".")[2])
    for function in held:
        names = function.__globals__
        values = [eval(compile(ast.Expression(d), "defaults", "eval"), names) for d in node.args.defaults]
        function.__defaults__ = tuple(values) or None
        pairs = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
        keywords = {a.arg: eval(compile(ast.Expression(d), "defaults", "eval"), names) for a, d in pairs if d is not None}
        function.__kwdefaults__ = keywords or None
    return True
