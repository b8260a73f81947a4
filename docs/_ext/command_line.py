"""The page of the command line, made from the commands themselves."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from docstrings import markdown

from sfumato.cli import app


def command_line() -> str:
    """Every command with its arguments and options."""
    root = typer.main.get_command(app)
    parts = ["# The command line", f"`sfumato COMMAND --help` says the same in the terminal. {root.help or ''}"]
    for path, command in _commands("sfumato", root):
        parts += [f"## {path}", f"```{{program}} {path}\n```", f"```sh\n{_usage(path, command)}\n```", markdown(command.help or "")]
        parts += [_option(command, parameter) for parameter in command.params if parameter.name != "help"]
    return "\n\n".join(parts) + "\n"


def _commands(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands(f"{path} {name}", inner)
    if not hasattr(command, "commands"):
        yield path, command


def _usage(path: str, command: Any) -> str:
    places = [p for p in command.params if p.param_type_name == "argument"]
    words = [f"{p.name.upper()}{'...' if p.nargs == -1 else ''}" if p.required else f"[{p.name.upper()}]" for p in places]
    return " ".join([path, *words, "[OPTIONS]"])


def _option(command: Any, parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        shown = parameter.name.upper()
    elif getattr(parameter, "is_flag", False):
        shown = ", ".join(parameter.opts)
    else:
        shown = ", ".join(f"{name} <{_kind(command, parameter.name)}>" for name in parameter.opts)
    default = "" if parameter.default in (None, False, ()) else f" Default: `{parameter.default}`."
    return f"````{{option}} {shown}\n\n{markdown(parameter.help or '')}.{default}\n````"


def _kind(command: Any, name: str) -> str:
    """What a value of the option is, from the type of the function's argument."""
    hint = typing.get_type_hints(inspect.unwrap(command.callback))[name]
    kinds = {Path: "path", str: "text", float: "number", int: "number"}
    return next((word for kind, word in kinds.items() if kind in (hint, *typing.get_args(hint))), "value")
