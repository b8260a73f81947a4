"""Which test reaches which statement, and how long it takes: measured once, kept until the test's file or the rooms' code change.

Every statement of the rooms gets a mark in front of it before it is imported. What is marked while a test's own set-up and body run is its;
what a fixture of a wider scope reaches belongs to all tests that use it; what runs while a test file is collected belongs to the file.
"""

from __future__ import annotations

import ast
import builtins
import functools
import gc
import hashlib
import json
import signal
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.mutation.mutants import files, statements

_MARK = "__reached__"
SLOWEST = 4.0


class TooSlow(BaseException):
    """A test that no mutant can be given to."""


def marked(file: str, source: bytes) -> bytes:
    """The source with a mark in front of every statement that does something."""
    tree = ast.parse(source)
    _Marks(file, {statement: place for place, statement in enumerate(statements(tree))}).visit(tree)
    return ast.unparse(ast.fix_missing_locations(tree)).encode()


class _Marks(ast.NodeTransformer):
    def __init__(self, file: str, places: dict[ast.stmt, int]) -> None:
        self.file, self.places = file, places

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list) and block:
                setattr(node, name, [new for statement in block for new in self._with_mark(statement)])
        return node

    def _with_mark(self, statement: ast.stmt) -> list[ast.stmt]:
        if isinstance(statement, ast.ImportFrom) or statement not in self.places:
            return [statement]
        call = ast.parse(f"{_MARK}({f'{self.file}:{self.places[statement]}'!r})").body[0]
        return [call, statement]


class Reached:
    """The plugin that collects the marks."""

    def __init__(self) -> None:
        self.marks: set[str] = set()
        self.of_file: dict[str, set[str]] = {}
        self.of_fixture: dict[tuple[str, str], set[str]] = {}
        self.outcome: dict[str, str] = {}
        setattr(builtins, _MARK, self.marks.add)

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> Generator[None, Any, Any]:
        before = set(self.marks)
        self.marks.clear()
        report = yield
        if isinstance(collector, pytest.Module):
            self.of_file[collector.nodeid] = set(self.marks)
        self.marks.update(before)
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Generator[None, Any, Any]:
        before = set(self.marks)
        self.marks.clear()
        result = yield
        if fixturedef.scope != "function":
            self.of_fixture.setdefault((fixturedef.baseid, fixturedef.argname), set()).update(self.marks)
        self.marks.update(before)
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome != "passed" or report.when == "call":
            self.outcome[report.nodeid] = report.outcome

    def run(self, items: list[pytest.Item]) -> dict[str, Any]:
        """Run the items of one file in order: seconds of processor time, and the marks of each that passes within `SLOWEST`."""
        signal.signal(signal.SIGPROF, _too_slow)
        caches = [thing for thing in gc.get_objects() if isinstance(thing, functools._lru_cache_wrapper) and _ours(thing)]
        found = {}
        for item, following in zip(items, [*items[1:], None], strict=True):
            for cache in caches:
                cache.cache_clear()
            self.marks.clear()
            start = time.process_time()
            signal.setitimer(signal.ITIMER_PROF, SLOWEST)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            signal.setitimer(signal.ITIMER_PROF, 0)
            seconds = time.process_time() - start
            definitions = item._fixtureinfo.name2fixturedefs.values()
            names = {(d.baseid, d.argname) for several in definitions for d in several}
            marks = self.marks.union(*(self.of_fixture.get(name, set()) for name in names))
            if self.outcome.get(item.nodeid) == "passed":
                found[item.nodeid] = {"seconds": round(seconds, 4), "marks": sorted(marks)}
        return found


def _too_slow(*_: object) -> None:
    raise TooSlow


def _ours(cache: Any) -> bool:
    module = getattr(cache, "__module__", None) or ""
    return module.startswith(("sfumato", "test_", "conftest"))


class Cache:
    """What was measured, one file of JSON per test file, valid as long as package and test file are the same."""

    def __init__(self, folder: Path, package: Path) -> None:
        self.folder = folder
        self.package = digest(*(package / file for file in files(package=package)))
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, test: Path) -> dict[str, Any] | None:
        path = self._path(test)
        return json.loads(path.read_text()) if path.exists() else None

    def put(self, test: Path, found: dict[str, Any]) -> None:
        self._path(test).write_text(json.dumps(found))

    def _path(self, test: Path) -> Path:
        return self.folder / f"{test.stem}-{digest(test)}-{self.package}.json"


def digest(*paths: Path) -> str:
    """What tells one state of some files from another: their code, without comments and docstrings."""
    total = hashlib.sha256()
    for path in paths:
        tree = ast.parse(path.read_bytes())
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False) is not None:
                del node.body[0]
        total.update(ast.dump(tree).encode())
    return total.hexdigest()[:12]
