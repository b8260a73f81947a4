"""One public name as an entry of the reference: what it is, how it is called, what its docstring says, and its members."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from docstrings import markdown
from sources import fields, home, written

LONGEST = 60  # of a default or a constant that is shown as it is


@dataclass(frozen=True)
class Entry:
    """A public name."""

    module: str  # where users import it from
    name: str
    thing: Any
    home: str  # the module that defines it
    line: int
    doc: str


def entry_of(module: ModuleType, name: str) -> Entry:
    """The entry of a name that a module makes public."""
    thing = getattr(module, name)
    where = home(name, thing, module.__name__)
    found = written(where)[name]
    return Entry(module.__name__, name, thing, where, found.line, found.doc)


class _As:
    """Stands in a signature for a text that is shown as it is."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _annotation(given: Any) -> Any:
    if given is inspect.Parameter.empty:
        return given
    text = given if isinstance(given, str) else inspect.formatannotation(given)
    text = re.sub(r"\b(?:sfumato|collections|typing|torch|numpy)\.(?:\w+\.)*(?=\w)", "", text)
    return _As(re.sub(r'(["\'])\s*([^"\']*?)\s*\1', r'"\2"', text))


def _default(given: Any) -> Any:
    if given is inspect.Parameter.empty:
        return given
    text = given.__name__ if inspect.isroutine(given) or inspect.isclass(given) else repr(given)
    return _As(text if len(text) <= LONGEST and not re.search(r"[<>\n]| at 0x", text) else "...")


def signature(thing: Any, drop_first: bool = False) -> str:
    """`(x: Tensor, steps: int = 2) -> Tensor`, with annotations as they are written in the source."""
    found = inspect.signature(thing)
    kept = list(found.parameters.values())[1 if drop_first else 0 :]
    kept = [p.replace(annotation=_annotation(p.annotation), default=_default(p.default)) for p in kept]
    return str(found.replace(parameters=kept, return_annotation=_annotation(found.return_annotation)))


def _constructor(cls: type) -> str:
    """Its signature; nothing for protocols and classes whose constructor is somebody else's."""
    if getattr(cls, "_is_protocol", False) or (inspect.isabstract(cls) and "__init__" not in vars(cls)):
        return ""
    try:
        return re.sub(r" -> None$", "", signature(cls))
    except ValueError:
        return ""


def _fence(depth: int, kind: str, argument: str, options: Mapping[str, str], body: str) -> str:
    ticks = "`" * (6 - depth)
    lines = [f"{ticks}{{py:{kind}}} {argument}", *(f":{key}: {value}".rstrip() for key, value in options.items()), "", body, ticks]
    return "\n".join(lines)


def render(entry: Entry, public: set[type]) -> str:
    """The entry as a MyST directive of Sphinx's Python domain."""
    body, options = markdown(entry.doc), {"module": entry.module}
    if inspect.isclass(entry.thing):
        parts = [_bases(entry.thing, public), body, *_members(entry.thing, public)]
        return _fence(0, "class", entry.name + _constructor(entry.thing), options, "\n\n".join(p for p in parts if p))
    if inspect.isroutine(entry.thing) or isinstance(entry.thing, functools._lru_cache_wrapper):
        return _fence(0, "function", entry.name + signature(entry.thing), options, body)
    text = re.sub(r"\b(?:sfumato|collections|typing|torch)\.(?:\w+\.)*(?=\w)", "", repr(entry.thing)).replace("\n", " ")
    if isinstance(entry.thing, Mapping):
        body += "\n\nKeys: " + ", ".join(f"`{key}`" for key in entry.thing) + "."
    elif len(text) <= 2 * LONGEST and " at 0x" not in text:
        body += f"\n\n```python\n{entry.name} = {text}\n```"
    return _fence(0, "data", entry.name, options, body)


def _bases(cls: type, public: set[type]) -> str:
    names = [b.__name__ for b in cls.__bases__ if b in public] + [f"{b.__module__}.{b.__name__}" for b in cls.__bases__ if _foreign(b)]
    return f"Is a {', '.join(f'`{name}`' for name in names)}." if names else ""


def _foreign(base: type) -> bool:
    return base.__module__.partition(".")[0] in {"torch", "diffusers"}


def _members(cls: type, public: set[type]) -> Iterator[str]:
    """Documented fields, and the methods and properties that no public base describes."""
    seen: set[str] = set()
    for base in cls.__mro__:
        if not base.__module__.startswith("sfumato") or (base is not cls and base in public):
            seen |= set(vars(base))
            continue
        for name, doc in fields(base.__module__, base.__name__).items() if base.__qualname__ == base.__name__ else ():
            if not name.startswith("_") and name not in seen:
                yield _fence(1, "attribute", name, {}, markdown(doc))
        for name, raw in vars(base).items():
            if (name.startswith("_") and name != "__call__") or name in seen:
                continue
            seen.add(name)
            yield from _member(name, raw)


def _member(name: str, raw: Any) -> Iterator[str]:
    kinds: list[tuple[type, str]] = [(classmethod, "classmethod"), (staticmethod, "staticmethod")]
    if isinstance(raw, property | functools.cached_property):
        get: Callable[..., Any] | None = raw.fget if isinstance(raw, property) else raw.func
        if get is not None and get.__doc__:
            returns = repr(_annotation(inspect.signature(get).return_annotation))
            yield _fence(1, "property", name, {"type": returns}, markdown(get.__doc__))
        return
    flags = {flag: "" for kind, flag in kinds if isinstance(raw, kind)}
    function = raw.__func__ if flags else raw
    if not inspect.isfunction(function) or not function.__doc__:
        return
    if getattr(function, "__isabstractmethod__", False):
        flags["abstractmethod"] = ""
    yield _fence(1, "method", name + signature(function, "staticmethod" not in flags), flags, markdown(function.__doc__))
