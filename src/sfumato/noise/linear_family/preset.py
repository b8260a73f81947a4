"""Presets of the linear SDE family remember how they were made, so that they can be written down and made again."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from torch import Tensor

from sfumato.noise.linear_family.linear_sde import LinearSDE

P = ParamSpec("P")
Member = TypeVar("Member", bound=LinearSDE)


def preset(make: Callable[P, Member]) -> Callable[P, Member]:
    """`make`, whose processes know their `to_dict`: `{"kind": the maker's name, **arguments}`, tensors as nested lists."""
    signature = inspect.signature(make)

    @functools.wraps(make)
    def remembering(*args: P.args, **kwargs: P.kwargs) -> Member:
        process = make(*args, **kwargs)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        process.origin = {"kind": make.__name__, **{name: _plain(value) for name, value in bound.arguments.items()}}
        return process

    return remembering


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().tolist()
    return [_plain(v) for v in value] if isinstance(value, tuple | list) else value
