"""What a benchmark says: rows of a name, a value, a target and whether it is reached, and the machine they were measured on."""

from __future__ import annotations

import importlib.metadata
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sfumato.machine import machine as facts


@dataclass(frozen=True)
class Row:
    """One measured value.

    Arguments:
        name: what it is.
        value: None if it could not be measured here; `details` then says why.
        target: what it should be, in words; empty for a fact without a target.
        passed: whether the target is reached; None for a fact, and where it cannot be told.
        details: what the value is made of.
    """

    name: str
    value: float | None
    target: str = ""
    passed: bool | None = None
    details: str = ""


@dataclass(frozen=True)
class Figure:
    """A benchmark's rows, and whatever else is worth keeping, as plain data."""

    rows: list[Row]
    facts: Mapping[str, Any] = field(default_factory=dict)


def at_most(name: str, value: float, limit: float, details: str = "") -> Row:
    """A row that passes at or below its limit; NaN does not."""
    return Row(name, value, f"<= {limit:g}", value <= limit, details)


def at_least(name: str, value: float, limit: float, details: str = "") -> Row:
    """A row that passes at or above its limit; NaN does not."""
    return Row(name, value, f">= {limit:g}", value >= limit, details)


def timed(task: Callable[[], object]) -> Callable[[], float]:
    """The task, returning the seconds it took."""

    def run() -> float:
        start = time.perf_counter()
        task()
        return time.perf_counter() - start

    return run


def alternate(tasks: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """The seconds that every task says it took in every round.

    Each round runs each task once, every other round backwards, after one round that does not count: what slows the machine down for a
    while slows all of them down.
    """
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for i in range(rounds + 1):
        for name in list(tasks) if i % 2 else reversed(tasks):
            took = tasks[name]()
            if i:
                seconds[name].append(took)
    return seconds


def paired_ratio(top: list[float], bottom: list[float]) -> float:
    """The median over rounds of `top / bottom`, each pair measured side by side."""
    return statistics.median(a / b for a, b in zip(top, bottom, strict=True))


def machine() -> dict[str, Any]:
    """Facts about the machine and the libraries."""
    packages = ("torch", "diffusers", "accelerate", "azula", "k-diffusion")
    return {**facts(), "load": round(os.getloadavg()[0], 2), **{name: _version(name) for name in packages}}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
