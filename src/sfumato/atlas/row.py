"""A row of the atlas: a paper, its claim, and the checks and negative controls that measure it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from sfumato.errors import ArgumentError

Reproduced = Literal["yes", "partly", "no"]
Number = int | float


@dataclass(frozen=True)
class Check:
    """A measured value against what it should be; a control is a check of the same kind with the mechanism off, and has to fail."""

    name: str
    measured: Number | str
    expected: str
    passed: bool
    control: bool = False

    @property
    def good(self) -> bool:
        """Passed, or, for a control, failed as it should."""
        return self.passed != self.control


Measure = Callable[[], Iterable[Check]]
"""One numbered check of a card: at most 60 lines that compose library parts, and yield what they find as they find it."""


@dataclass(frozen=True)
class Row:
    """A paper of the atlas.

    Arguments:
        id, slug: how the card names it, e.g. `T3` and `gaussian-score-teleport`.
        title, authors, year, arxiv: the paper.
        claim: the claim in one sentence; where it does not hold here, with the measured evidence.
        reproduced: whether the paper's claim holds at our scale.
        checks: what measures it, one that takes a second first: the test suite runs that one of every row.
    """

    id: str
    slug: str
    title: str
    authors: str
    year: int
    arxiv: str
    claim: str
    reproduced: Reproduced
    checks: Sequence[Measure]

    def run(self) -> Iterator[Check]:
        """All checks and controls, as they are measured."""
        for measure in self.checks:
            yield from measure()


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
        """Plain data: the row's identity, `checks`, `controls` and `seconds`."""
        about = {key: getattr(self.row, key) for key in ("id", "slug", "title", "claim", "reproduced")}
        checks = [{k: v for k, v in asdict(c).items() if k != "control"} for c in self.checks if not c.control]
        controls = [{"name": c.name, "measured": c.measured, "failed_as_it_should": c.good} for c in self.checks if c.control]
        return {**about, "checks": checks, "controls": controls, "seconds": self.seconds}


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
    return Check(name, measured, f"<= {limit:g}", measured <= limit)


def at_least(name: str, measured: Number, limit: Number) -> Check:
    """Passes at or above the limit; NaN does not."""
    return Check(name, measured, f">= {limit:g}", measured >= limit)


def within(name: str, measured: Number, low: Number, high: Number) -> Check:
    """Passes from `low` to `high`; NaN does not."""
    return Check(name, measured, f"in [{low:g}, {high:g}]", low <= measured <= high)


def close(name: str, measured: Number, expected: Number, *, relative: Number = 0.0, absolute: Number = 0.0) -> Check:
    """Passes within `relative * |expected| + absolute` of the expected value; NaN does not.

    Raises:
        ArgumentError: no tolerance at all, or a negative one.
    """
    slack = relative * abs(expected) + absolute
    if not (relative >= 0 and absolute >= 0 and 0 < slack < math.inf):
        raise ArgumentError("relative, absolute", (relative, absolute), "tolerances of at least 0, not both without effect")
    return Check(name, measured, f"{expected:.6g} +- {slack:.2g}", abs(measured - expected) <= slack)


def holds(name: str, measured: Number | str, expected: str, passed: bool) -> Check:
    """A statement that is no single bound: say what was measured, and what was expected of it."""
    return Check(name, measured, expected, passed)


def control(check: Check) -> Check:
    """The same check with the mechanism off: it has to fail."""
    return replace(check, control=True)
