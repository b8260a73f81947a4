r"""Heun's method in `y = x / alpha` over `k = sigma / alpha`, where the probability flow is `dy/dk = (y - D) / k` (Karras et al. 2022,
arXiv 2206.00364, algorithm 1, without churn).

An Euler step, which is DDIM, predicts the new state; a second evaluation there gives the mean of the two slopes. In the terms of
`extrapolation.py` that is noise prediction under the midpoint rule with the nodes at both ends, evaluated anew after every step.

Steps with an infinite end are Euler steps: at `k = 0` the slope is 0/0, and from `alpha = 0` the mean slope diverges while Euler's limit is
`x_i = (sigma_i / sigma_b) x_b + alpha_i D`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sfumato.noise import ScalarProcess
from sfumato.sample.extrapolation import Extrapolation
from sfumato.sample.program import Program
from sfumato.sample.schedules import custom
from sfumato.sample.solver import Solver
from sfumato.sample.stepping import StepTable


@dataclass(frozen=True)
class Heun(Solver):
    """Two evaluations a step, one on Euler steps; see the module."""

    @property
    def name(self) -> str:
        return "heun"

    @property
    def order(self) -> int:
        return 2

    def compile(self, process: ScalarProcess, times: Sequence[float]) -> Program:
        times = custom(times)
        table, euler, mean = StepTable(process, times), Extrapolation.of("data"), Extrapolation.of("noise", "midpoint")
        state = 0
        for i in range(1, len(times)):
            old = table.node(state, i - 1)
            new = table.step(euler, state, i - 1, i, [old])
            if math.isfinite(table.half_log_snr[i - 1]) and math.isfinite(table.half_log_snr[i]):
                new = table.step(mean, state, i - 1, i, [old, table.node(new, i)])
            state = new
        return table.program(self.name)
