"""What the figures of solver rows share: exact errors against the number of steps, on logarithmic axes."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from sfumato.atlas.solvers.worlds import PROCESS, error, grid, weak_error
from sfumato.sample import Solver

STEPS = (5, 10, 20, 40, 80)
LOOKS = ("o-", "s--", "^:")
"""Of a figure's three curves."""
_SHORT = 4.5


@functools.cache
def errors(solver: Solver, steps: tuple[int, ...] = STEPS) -> tuple[float, ...]:
    """`worlds.error` for several numbers of steps."""
    return tuple(error(solver, n) for n in steps)


@functools.cache
def weak_errors(solver: Solver, steps: tuple[int, ...] = STEPS) -> tuple[float, ...]:
    """The size of `worlds.weak_error` for several numbers of steps."""
    return tuple(abs(weak_error(solver.compile(PROCESS, grid(n)))) for n in steps)


def draw_curves(
    ax: Any,
    x: Sequence[int | float],
    curves: Mapping[str, Sequence[int | float]],
    ylabel: str = "largest error on G4",
    xlabel: str = "steps",
) -> None:
    """Up to three curves over the same `x`, by their labels; the paper's own comes first. A short axis is not logarithmic."""
    for i, (label, values) in enumerate(curves.items()):
        ax.plot(x, values, LOOKS[i], color=f"C{i}", markersize=4, label=label)
    drawn = [v for values in curves.values() for v in values]
    ax.set_xscale("log" if max(x) > _SHORT * min(x) else "linear")
    ax.set_yscale("log" if max(drawn) > _SHORT * min(drawn) else "linear")
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.legend()
