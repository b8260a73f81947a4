r"""Exponential multistep solvers: the closed form of a linearisation, and a polynomial through the residuals of past nodes.

With one evaluation a step. The predictor of order `p` interpolates through the `p` newest nodes; the optional corrector adds the node just
reached, with the answer given at the predicted point, and so raises the order by one at no further evaluation (Zhao et al. 2023,
arXiv 2302.04867, for data and noise prediction; the linearisations of `linearisation.py` make it one family).

The order ramps up from 1 as history fills: without a corrector these first steps cap the order at 2 in the end. An exact start takes them
by Runge-Kutta's method of order 4 instead, with 4 evaluations each. A start above the first evaluation is a *teleport*: the residual is
dropped between `t_0` and `t_1`, where the law explains the belief, and the state is carried by the closed form (Wang & Vastola 2024, arXiv
2412.09726). A schedule that ends at zero noise ends with the answer at the last node before it ("denoise to zero").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from sfumato.errors import ArgumentError
from sfumato.noise import ScalarProcess
from sfumato.sample.compilers.linearisation import Linearisation
from sfumato.sample.compilers.runge_kutta import TABLEAUS, runge_kutta_step
from sfumato.sample.compilers.stepping import Node, StepTable, newest
from sfumato.sample.program import Program
from sfumato.sample.solver import Solver
from sfumato.sample.times.schedules import custom

Final = Literal["full", "lower"]
"""Whether the last steps keep their order, or fall to 2 and 1."""

Start = Literal["ramp", "exact"]
"""Whether the order ramps up with the history, or the first steps are taken by a method of order 4."""

Evaluation = Literal["pec", "pece"]
"""Whether a corrected point keeps the answer given at the predicted one, or is evaluated anew."""


@dataclass(frozen=True)
class Exponential(Solver):
    """Multistep exponential integrator, see the module.

    Arguments:
        linearisation: what is solved in closed form.
        steps: the predictor's order, i.e. how many past answers it interpolates.
        corrector: whether a reached node is corrected with the answer given there.
        teleport: whether the first step is taken by the closed form alone, without an evaluation.
        start: with "exact", the first `steps - 1` steps are Runge-Kutta steps wherever the log-SNR is finite.
        evaluation: with "pece", a corrected point is evaluated again: two evaluations a step.
        final: with "lower", no step's order exceeds the number of steps left: steadier where few steps end at zero noise.
        label: a name of its own.
    """

    linearisation: Linearisation = field(default_factory=Linearisation.data)
    steps: int = 2
    corrector: bool = False
    teleport: bool = False
    final: Final = "full"
    start: Start = "ramp"
    evaluation: Evaluation = "pec"
    label: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 6:
            raise ArgumentError("steps", self.steps, "an order from 1 to 6")
        for name, kind in (("final", Final), ("start", Start), ("evaluation", Evaluation)):
            if getattr(self, name) not in get_args(kind):
                raise ArgumentError(name, repr(getattr(self, name)), f"one of {', '.join(get_args(kind))}")
        if self.evaluation == "pece" and not self.corrector:
            raise ArgumentError("evaluation", "'pece'", "'pec' without a corrector", "There is no corrected point to evaluate.")
        if self.start == "exact" and (self.steps + self.corrector > 5 or self.teleport):
            raise ArgumentError("start", "'exact'", "at most order 5 and no teleport", "The first steps are of order 4.")

    @property
    def name(self) -> str:
        return self.label or f"exponential-{self.steps}{'c' if self.corrector else ''}"

    @property
    def order(self) -> int:
        order = self.linearisation.order(self.steps) + self.corrector
        return min(order, 2) if self.final == "lower" else order

    def compile(self, process: ScalarProcess, times: Sequence[float]) -> Program:
        times = custom(times)
        if self.teleport and len(times) < 3:
            raise ArgumentError("times", list(times), "at least three times with a teleport", "One step must be left to the denoiser.")
        table, split, last = StepTable(process, times), self.linearisation.under(process), len(times) - 1
        first = int(self.teleport)
        base = table.carry(split, 0, 0, 1) if self.teleport else 0  # the row that the next step starts from
        history = [table.node(base, first)]
        for i in range(first + 1, last + 1):
            if self.start == "exact" and i < self.steps + self.corrector and table.finite(i - 1, i):
                base = runge_kutta_step(table, TABLEAUS["rk4"], history[-1], i - 1, i)
                history.append(table.node(base, i))
                continue
            new = table.step(split, base, i - 1, i, self._usable(history, self.steps, table.half_log_snr[i], last - i))
            if i == last:
                break
            history.append(table.node(new, i))
            if self.corrector:
                used = self._usable(history, self.steps + 1, table.half_log_snr[i], last - i)
                new = table.step(split, base, i - 1, i, used)
                if self.evaluation == "pece":
                    history[-1] = table.node(new, i)
            base = new
        return table.program(self.name, split.space)

    def _usable(self, history: list[Node], order: int, end: float, left: int) -> Sequence[Node]:
        """The nodes that a step reads with `left` steps after it."""
        if self.final == "lower":
            order = min(order, left + 1 + (order > self.steps))
        return newest(history, order, self.linearisation, end)
