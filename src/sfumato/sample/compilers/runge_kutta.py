r"""Explicit Runge-Kutta methods on the probability flow: in `y = x / alpha` over `k`, or on `x` over `t`.

    over k:   dy/dk = (y - D) / k          over t:   dx/dt = alpha' D + sigma' (x - alpha D) / sigma

`s` stages a step and as many evaluations, none reused. Over `k` Euler's method is DDIM, and the family is DEIS's rhoRK (Zhang & Chen 2023,
arXiv 2204.13902, section 3.3); over `t` Euler's method is what one would write first, and exponential integrators are measured against.
Steps over `k` with an infinite end are Euler steps in their limit, `X_i = (sigma_i / sigma_b) X_b + alpha_i D` from `alpha = 0`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

import torch

from sfumato.errors import ArgumentError
from sfumato.noise import ScalarProcess
from sfumato.sample.compilers.linearisation import Linearisation
from sfumato.sample.compilers.stepping import Node, StepTable
from sfumato.sample.program import Program, Row
from sfumato.sample.solver import Solver
from sfumato.sample.times.schedules import custom


@dataclass(frozen=True)
class Tableau:
    """A method: stage `i` stands at the share `nodes[i]` of the step and adds up slopes by `stages[i]`, the step's end by `weights`.

    Raises:
        ArgumentError: stages that look ahead, or whose sums are not their nodes.
    """

    order: int
    nodes: tuple[int | float, ...]
    stages: tuple[tuple[int | float, ...], ...]
    weights: tuple[int | float, ...]

    def __post_init__(self) -> None:
        rows = (*self.stages, self.weights)
        fits = len(self.nodes) == len(self.weights) == len(self.stages) and all(len(r) == i for i, r in enumerate(self.stages))
        if not fits or any(abs(math.fsum(r) - c) > 1e-12 for r, c in zip(rows, (*self.nodes, 1.0), strict=True)):
            raise ArgumentError("tableau", self, "an explicit and consistent one: stage i has i coefficients, which sum to its node")


TABLEAUS: Mapping[str, Tableau] = MappingProxyType(
    {
        "euler": Tableau(1, (0,), ((),), (1,)),
        "midpoint": Tableau(2, (0, 1 / 2), ((), (1 / 2,)), (0, 1)),
        "heun": Tableau(2, (0, 1), ((), (1,)), (1 / 2, 1 / 2)),
        "kutta": Tableau(3, (0, 1 / 2, 1), ((), (1 / 2,), (-1, 2)), (1 / 6, 2 / 3, 1 / 6)),
        "heun-3": Tableau(3, (0, 1 / 3, 2 / 3), ((), (1 / 3,), (0, 2 / 3)), (1 / 4, 0, 3 / 4)),
        "ralston-3": Tableau(3, (0, 1 / 2, 3 / 4), ((), (1 / 2,), (0, 3 / 4)), (2 / 9, 1 / 3, 4 / 9)),
        "van-der-houwen": Tableau(3, (0, 8 / 15, 2 / 3), ((), (8 / 15,), (1 / 4, 5 / 12)), (1 / 4, 0, 3 / 4)),
        "rk4": Tableau(4, (0, 1 / 2, 1 / 2, 1), ((), (1 / 2,), (0, 1 / 2), (0, 0, 1)), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
    }
)
"""The methods by name. SSPRK3 is not among them: its third stage goes back in time, and a program's times never rise."""

Over = Literal["ratio", "time"]
_NOISE = Linearisation.noise()


@dataclass(frozen=True)
class RungeKutta(Solver):
    """A method of `TABLEAUS`, see the module.

    Arguments:
        method: its name.
        over: "ratio" (`k`) or "time".
    """

    method: str = "heun"
    over: Over = "ratio"

    def __post_init__(self) -> None:
        if self.method not in TABLEAUS:
            raise ArgumentError("method", repr(self.method), f"one of {', '.join(TABLEAUS)}")
        if self.over not in get_args(Over):
            raise ArgumentError("over", repr(self.over), f"one of {', '.join(get_args(Over))}")

    @property
    def name(self) -> str:
        return f"{'rho' if self.over == 'ratio' else 'time'}-{self.method}"

    @property
    def order(self) -> int:
        return TABLEAUS[self.method].order

    def compile(self, process: ScalarProcess, times: Sequence[float]) -> Program:
        times = custom(times)
        table, state = StepTable(process, times), 0
        for i in range(1, len(times)):
            state = runge_kutta_step(table, TABLEAUS[self.method], table.node(state, i - 1), i - 1, i, self.over)
        return table.program(self.name)


def runge_kutta_step(table: StepTable, method: Tableau, node: Node, a: int, b: int, over: Over = "ratio") -> int:
    """New rows for one step from the node at time number `a` to number `b`; returns the last.

    Raises:
        ArgumentError: a slope over time that is infinite.
    """
    if over == "ratio" and not table.finite(a, b):
        return table.step(Linearisation.data(), node.row, a, b, [node])
    slopes: list[tuple[Node, int]] = [(node, a)]
    for share, coefficients in zip(method.nodes[1:], method.stages[1:], strict=True):
        place = table.between(a, b, share, over)
        row = _sum(table, slopes, coefficients, (a, place), (a, b), over)
        slopes.append((table.node(row, place), place))
    return _sum(table, slopes, method.weights, (a, b), (a, b), over)


def _sum(
    table: StepTable,
    slopes: list[tuple[Node, int]],
    coefficients: Sequence[int | float],
    to: tuple[int, int],
    step: tuple[int, int],
    over: Over,
) -> int:
    """A new row: the state at the step's beginning, plus the step times the weighted slopes."""
    used = [(node, place, c) for (node, place), c in zip(slopes, coefficients, strict=True) if c]
    start = slopes[0][0]
    if over == "ratio":
        length = math.exp(-table.half_log_snr[step[1]]) - math.exp(-table.half_log_snr[step[0]])
        # eps = (x / alpha - D) / k, and combine() subtracts the gain 1 / alpha itself
        weights = [torch.tensor([-table.alpha[to[1]] * length * c * math.exp(n.half_log_snr)], dtype=torch.float64) for n, _, c in used]
        return table.combine(_NOISE, start.row, *to, [n for n, _, _ in used], weights)
    states, data = {start.row: torch.ones(1, dtype=torch.float64)}, {}
    length = table.times[step[1]] - table.times[step[0]]
    for node, place, c in used:
        on_data, on_state = _slope(table, place)
        data[node.row] = torch.tensor([length * c * on_data], dtype=torch.float64)
        states[node.row] = states.get(node.row, torch.zeros(1, dtype=torch.float64)) + length * c * on_state
    return table.add(to[1], Row(states, data))


def _slope(table: StepTable, place: int) -> tuple[float, float]:
    """`dx/dt = a D + b x` at a time."""
    t = table.times[place]
    if table.sigma[place] == 0:
        raise ArgumentError("times", t, "stages at times with noise left", "There the noise is 0/0; end with another method.")
    share = float(table.process.sigma_rate(t)) / table.sigma[place]
    return float(table.process.alpha_rate(t)) - share * table.alpha[place], share
