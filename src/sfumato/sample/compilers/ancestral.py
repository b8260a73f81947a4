r"""Ancestral steps: some of the predicted noise is taken away, and as much fresh noise put back.

A step over `h` in half log-SNR, from level `b` to level `i`, keeps the share `r` of the noise that the state holds,

    X_i = r (sigma_i / sigma_b) X_b + alpha_i (1 - r exp(-h)) D + sigma_i sqrt(1 - r^2) eps,        r^2 = 1 - eta^2 (1 - exp(-2h)).

`eta = 0` is DDIM; `eta = 1` has `r = exp(-h)` and draws from the exact posterior `p(x_i | x_b, x_0 = D)`, i.e. DDPM's ancestral
sampling, which is also the reverse SDE's exponential step. Sources: Song et al. 2021 (arXiv 2010.02502), eqs. 12 and 16; Ho et al. 2020
(arXiv 2006.11239), eq. 7.

With two answers, `D` is extrapolated to the middle of the step, `D_b + (h / 2 h') (D_b - D_b')`: DPM-Solver++(2M) at `eta = 0`, its SDE
form at `eta = 1` (Lu et al. 2022, arXiv 2211.01095).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sfumato.errors import ArgumentError
from sfumato.noise import ScalarProcess
from sfumato.sample.compilers.stochastic import Stochastic, StochasticTable, Walk
from sfumato.sample.program import Program
from sfumato.sample.solver import Solver
from sfumato.sample.times.schedules import custom


@dataclass(frozen=True)
class Ancestral(Solver):
    """The eta family, see the module. Row `i` uses draw `i`.

    Arguments:
        eta: how much of the posterior's noise is drawn, in [0, 1].
        steps: how many past answers make `D`: 1, or 2.
        label: a name of its own.
    """

    eta: float = 1.0
    steps: int = 1
    label: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ArgumentError("eta", self.eta, "a share in [0, 1]")
        if self.steps not in (1, 2):
            raise ArgumentError("steps", self.steps, "1 or 2 past answers")

    @property
    def name(self) -> str:
        return self.label or f"ancestral-{self.steps}-eta{self.eta:g}"

    @property
    def order(self) -> int:
        return self.steps

    @property
    def deterministic(self) -> bool:
        return self.eta == 0

    def compile(self, process: ScalarProcess, times: Sequence[float]) -> Program:
        table, split = StochasticTable(process, custom(times)), Stochastic.of("data", "midpoint")

        def step(a: int, b: int) -> Stochastic:
            h = table.half_log_snr[b] - table.half_log_snr[a]
            spent = self.eta**2 * math.expm1(-2 * h)
            return replace(split, log_kept=0.5 * math.log1p(spent) if spent > -1 else -math.inf)

        return Walk(self.steps).program(self.name, table, step)
