"""A row of the atlas: a paper, and the checks and negative controls that measure its claim."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sfumato.atlas.paper import Paper
from sfumato.atlas.source import fingerprint, rooms
from sfumato.errors import ArgumentError

Number = int | float


@dataclass(frozen=True)
class Check:
    """A measured value against what it should be; a control is a check of the same kind with the mechanism off, and has to fail.

    Arguments:
        name: what is measured.
        measured, expected, passed: what came, what passes in words, and whether it did.
        control: whether it has to fail.
        low, high: the least and the largest value that pass; None where there is no such bound.
    """

    name: str
    measured: Number | str
    expected: str
    passed: bool
    control: bool = False
    low: Number | None = None
    high: Number | None = None

    @property
    def good(self) -> bool:
        """Passed, or, for a control, failed as it should."""
        return self.passed != self.control

    def to_dict(self) -> dict[str, Any]:
        """Plain data, in which a check says whether it passed and a control whether it failed as it should."""
        verdict = {"failed_as_it_should": self.good} if self.control else {"passed": self.passed}
        return {"name": self.name, "measured": self.measured, "expected": self.expected, "low": self.low, "high": self.high, **verdict}


Measure = Callable[[], Iterable[Check]]
"""One numbered check of a card: at most 60 lines that compose library parts, and yield what they find as they find it."""


@dataclass(frozen=True)
class Row(Paper):
    """A paper of the atlas and what measures it.

    Arguments:
        checks: what measures the claim, one that takes a second first: the test suite runs that one of every row.
        figure: draws the paper's own picture on matplotlib axes, from what our parts compute, in a few seconds and in the axes' colours;
            text without `$`, which nothing reads there. It is called for wide and for narrow pages. Its docstring is the caption.
    """

    checks: Sequence[Measure]
    figure: Callable[[Any], None] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "module", self.module or self.checks[0].__module__)

    def run(self) -> Iterator[Check]:
        """All checks and controls, as they are measured."""
        for measure in self.checks:
            yield from measure()


_TOLD = ("id", "slug", "title", "authors", "year", "arxiv", "family", "claim", "reproduced")


@dataclass(frozen=True)
class Outcome:
    """What a run of a row found."""

    row: Row
    checks: list[Check]
    seconds: float

    @property
    def good(self) -> bool:
        """Whether every check passed and every control failed as it should."""
        return all(c.good for c in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: the paper, the row's rooms and fingerprint, `checks`, `controls` and `seconds`."""
        about = {key: getattr(self.row, key) for key in _TOLD}
        checks, controls = [[c.to_dict() for c in self.checks if c.control is wanted] for wanted in (False, True)]
        code = {"rooms": rooms(self.row), "code": fingerprint(self.row)}
        return {**about, **code, "checks": checks, "controls": controls, "seconds": round(self.seconds, 1)}


def run(row: Row, on_check: Callable[[Check], None] | None = None) -> Outcome:
    """Run a row; `on_check` hears of each check as it is done."""
    start, checks = time.perf_counter(), []
    for check in row.run():
        checks.append(check)
        if on_check is not None:
            on_check(check)
    return Outcome(row, checks, time.perf_counter() - start)


def at_most(name: str, measured: Number, limit: Number) -> Check:
    """Passes at or below the limit; NaN does not."""
    return Check(name, measured, f"<= {limit:g}", measured <= limit, high=limit)


def at_least(name: str, measured: Number, limit: Number) -> Check:
    """Passes at or above the limit; NaN does not."""
    return Check(name, measured, f">= {limit:g}", measured >= limit, low=limit)


def within(name: str, measured: Number, low: Number, high: Number) -> Check:
    """Passes from `low` to `high`; NaN does not."""
    return Check(name, measured, f"in [{low:g}, {high:g}]", low <= measured <= high, low=low, high=high)


def close(name: str, measured: Number, expected: Number, *, relative: Number = 0.0, absolute: Number = 0.0) -> Check:
    """Passes within `relative * |expected| + absolute` of the expected value; NaN does not.

    Raises:
        ArgumentError: no tolerance at all, or a negative one.
    """
    slack = relative * abs(expected) + absolute
    if not (relative >= 0 and absolute >= 0 and 0 < slack < math.inf):
        raise ArgumentError("relative, absolute", (relative, absolute), "tolerances of at least 0, not both without effect")
    passed = abs(measured - expected) <= slack
    return Check(name, measured, f"{expected:.6g} +- {slack:.2g}", passed, low=expected - slack, high=expected + slack)


def holds(name: str, measured: Number | str, expected: str, passed: bool) -> Check:
    """A statement that is no single bound: say what was measured, and what was expected of it."""
    return Check(name, measured, expected, passed)


def control(check: Check) -> Check:
    """The same check with the mechanism off: it has to fail."""
    return replace(check, control=True)
