"""The defaults of every function and class of the room, as its docstrings and the papers state them; a change is meant, or is a mistake.

Written anew by `cd tests/sample && python -c "import test_sample_defaults as t; t.write()"`.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
from pathlib import Path

import pytest
from calls_of_compilers import CALLS as COMPILERS
from calls_of_fits import CALLS as FITS
from calls_of_steps import CALLS as STEPS

import sfumato.sample

ROOM = Path(sfumato.sample.__file__).parent
HERE = Path(__file__).with_name("sample_defaults.json")
FILES = sorted(path.relative_to(ROOM).as_posix() for path in ROOM.rglob("*.py") if path.name != "__init__.py")


def written(value):
    """A default as text that names what it is made of; functions by their names."""
    if isinstance(value, dict):
        return {str(k): written(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [written(v) for v in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"": type(value).__name__} | {f.name: written(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return value if isinstance(value, int | float | str | None) else getattr(value, "__qualname__", type(value).__name__)


def defaults(thing):
    if isinstance(thing, type) and issubclass(thing, dict):
        return {}  # Python's own initialiser
    parameters = inspect.signature(thing).parameters.values()
    found = {p.name: written(p.default) for p in parameters if p.default is not p.empty and p.default is not None}
    if isinstance(thing, type) and dataclasses.is_dataclass(thing):
        made = {f.name: f.default_factory for f in dataclasses.fields(thing) if f.default_factory is not dataclasses.MISSING}
        found |= {name: written(factory()) for name, factory in made.items() if factory is not dict}
    return found


def things(file):
    """Functions, classes and methods that a module defines, by qualified name."""
    module = importlib.import_module("sfumato.sample." + file.removesuffix(".py").replace("/", "."))
    for thing in list(vars(module).values()):
        if getattr(thing, "__module__", None) != module.__name__ or not (inspect.isfunction(thing) or inspect.isclass(thing)):
            continue
        yield thing.__qualname__, thing
        if inspect.isclass(thing):
            yield from ((f.__qualname__, f) for f in map(inspect.unwrap, methods(thing)) if "__init__" not in f.__qualname__)


def methods(kind):
    return [getattr(v, "__func__", v) for v in vars(kind).values() if inspect.isfunction(getattr(v, "__func__", v))]


def of_file(file):
    return {name: found for name, thing in things(file) if (found := defaults(thing))}


def write():
    HERE.write_text(json.dumps({file: found for file in FILES if (found := of_file(file))}, indent=1) + "\n")


CALLS = COMPILERS | FITS | STEPS
KNOWN = json.loads(HERE.read_text()) if HERE.exists() else {}


@pytest.mark.parametrize("file", FILES)
def test_defaults_are_what_is_documented(file):
    # of the code as it runs
    for call in CALLS.get(file, ([], []))[0][:1]:
        call()
    assert json.loads(json.dumps(of_file(file))) == KNOWN.get(file, {})
