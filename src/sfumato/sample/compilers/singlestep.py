r"""Singlestep exponential solvers: `order` evaluations a step, none of them reused (DPM-Solver-2 and -3 of Lu et al. 2022, arXiv
2206.00927, algorithms 1 and 2; DPM-Solver++ 2S and 3S of arXiv 2211.01095).

Between a step's ends, `h` apart in half log-SNR, stand nodes at `r1 h` and `r2 h`:

    2S:  u1 from {b};                       X_i from {b, u1}, by the midpoint rule or exactly ("taylor")
    3S:  u1 from {b};  u2 from {b, u1};     X_i from {b, u2} ("midpoint") or {b, u1, u2} ("taylor"), exactly

where "from" lists the answers whose polynomial is integrated. Steps with an infinite end have order 1.

`Fast` spends a number of evaluations exactly: as many steps of order 3 as it holds, and the rest on steps of order 2 and 1 at the end
(DPM-Solver-fast, section 3.4 of arXiv 2206.00927). A step of order 1 at the end caps the order at 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, get_args

from sfumato.errors import ArgumentError
from sfumato.noise import ScalarProcess
from sfumato.sample.compilers.extrapolation import Extrapolation, Prediction
from sfumato.sample.compilers.stepping import StepTable
from sfumato.sample.program import Program
from sfumato.sample.solver import Solver
from sfumato.sample.times.schedules import custom


@dataclass(frozen=True)
class Singlestep(Solver):
    """DPM-Solver++ ("data") or DPM-Solver ("noise") with inner nodes, see the module.

    Arguments:
        stages: evaluations a step and order, 2 or 3.
        prediction: what is interpolated.
        form: "midpoint" or "taylor".
        ratios: where the inner nodes stand, `stages - 1` rising numbers in (0, 1); by default 1/2, or 1/3 and 2/3.
    """

    stages: int = 2
    prediction: Prediction = "data"
    form: Literal["midpoint", "taylor"] = "midpoint"
    ratios: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.stages not in (2, 3):
            raise ArgumentError("stages", self.stages, "2 or 3 evaluations a step")
        if self.form not in ("midpoint", "taylor"):
            raise ArgumentError("form", repr(self.form), "one of midpoint, taylor")
        if self.prediction not in get_args(Prediction):
            raise ArgumentError("prediction", repr(self.prediction), f"one of {', '.join(get_args(Prediction))}")
        if not self.ratios:
            object.__setattr__(self, "ratios", (1 / 2,) if self.stages == 2 else (1 / 3, 2 / 3))
        inside = all(a < b for a, b in zip((0.0, *self.ratios), (*self.ratios, 1.0), strict=True))
        if len(self.ratios) != self.stages - 1 or not inside:
            raise ArgumentError("ratios", self.ratios, f"{self.stages - 1} rising numbers in (0, 1)")

    @property
    def name(self) -> str:
        return f"dpm-solver{'++' if self.prediction == 'data' else ''}-{self.stages}s{'-taylor' if self.form == 'taylor' else ''}"

    @property
    def order(self) -> int:
        return self.stages

    def compile(self, process: ScalarProcess, times: Sequence[float]) -> Program:
        times = custom(times)
        table, state = StepTable(process, times), 0
        for i in range(1, len(times)):
            state = singlestep(table, self, state, i - 1, i)[-1]
        return table.program(self.name)


@dataclass(frozen=True)
class Fast(Solver):
    """DPM-Solver-fast: `n + 1` times make `n` evaluations. A step of order `p` reaches over `p` of their intervals.

    Arguments:
        prediction, form: as of `Singlestep`.
    """

    prediction: Prediction = "noise"
    form: Literal["midpoint", "taylor"] = "midpoint"

    def __post_init__(self) -> None:
        Singlestep(2, self.prediction, self.form)

    @property
    def name(self) -> str:
        return f"dpm-solver{'++' if self.prediction == 'data' else ''}-fast{'-taylor' if self.form == 'taylor' else ''}"

    @property
    def order(self) -> int:
        return 2

    @staticmethod
    def orders(evaluations: int) -> list[int]:
        """The orders of the steps: threes, then 2 and 1, or 1, or 2."""
        threes, left = divmod(evaluations, 3)
        return [3] * (threes - 1) + [2, 1] if left == 0 else [3] * threes + [left]

    def compile(self, process: ScalarProcess, times: Sequence[float]) -> Program:
        times = custom(times)
        orders = self.orders(len(times) - 1)
        ends = tuple(times[i] for i in accumulate(orders, initial=0))
        table, state = StepTable(process, ends), 0
        for i, order in enumerate(orders, start=1):
            if order == 1:
                state = table.step(Extrapolation.of(self.prediction), state, i - 1, i, [table.node(state, i - 1)])
            else:
                state = singlestep(table, Singlestep(order, self.prediction, self.form), state, i - 1, i)[-1]
        return table.program(self.name)


def singlestep(table: StepTable, how: Singlestep, state: int, a: int, b: int) -> list[int]:
    """The rows of a step from the row `state` at time number `a` to number `b`: inner nodes, then its end."""
    nodes, rows = [table.node(state, a)], []
    if not table.finite(a, b):
        return [table.step(Extrapolation.of(how.prediction), state, a, b, nodes)]
    midpoint = how.form == "midpoint"
    split = Extrapolation.of(how.prediction, "midpoint" if midpoint and how.stages == 2 else "exact")
    for share in how.ratios:
        inner = table.between(a, b, share, "log-ratio")
        rows.append(table.step(split, state, a, inner, nodes))
        nodes.append(table.node(rows[-1], inner))
    return [*rows, table.step(split, state, a, b, [nodes[0], nodes[-1]] if midpoint else nodes)]
