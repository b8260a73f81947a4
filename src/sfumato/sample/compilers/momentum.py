r"""Momentum: the direction of a step is a running mean of directions, which steadies few and strongly guided steps.

Write a step as `X_i = (s_i / s_b) X_b + W u`: the closed form of noise or data prediction, a lone answer's weight `W` and a *direction*
`u`, a mean of answers `g` (the noise, whose steps are uneven Adams steps in `k`; or the data). With `p` the solver's own mean and `v`
a *velocity* that starts as the first answer,

| kind | velocity | direction |
|---|---|---|
| heavy-ball | `v <- (1 - beta) v + beta p` | `v` |
| nesterov | the same | `(1 - beta) v + beta p` |
| ghvb | `v <- (1 - beta) v + beta g` | `1/beta` times Adams' combination of the newest velocities |

`beta = 1` is the solver without momentum. Heavy-ball and Nesterov's momentum widen the region of stability, and have order 1; GHVB keeps
order 2 from two velocities on (and that of its velocities on steps equal in `k`). Source: Wizadwongsa et al. 2023 (arXiv 2307.11118).

A direction is never stored: `u` of the step before is `(X_b - (s_b / s_a) X_a) / W`, so the table needs no more history than without.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.noise import ScalarProcess
from sfumato.sample.compilers.extrapolation import Extrapolation, Prediction
from sfumato.sample.compilers.stepping import Node, StepTable, newest
from sfumato.sample.program import Program
from sfumato.sample.solver import Solver
from sfumato.sample.times.schedules import custom

Kind = Literal["heavy-ball", "nesterov", "ghvb"]
"""How velocities and directions are made, see the module's table."""

_GHVB = {
    1: (1, ((0, 1),)),
    2: (2, ((2, 1), (-2, 1))),
    3: (12, ((18, 5), (-24, 8), (6, -1))),
    4: (24, ((46, 9), (-78, 19), (42, -5), (-10, 1))),
    5: (720, ((1650, 251), (-3420, 646), (2880, -264), (-1380, 106), (270, -19))),
}
"""Velocities to the coefficients `(c + d beta) / denominator` of the newest, the one before, ...; all still to be divided by `beta`."""


@dataclass(frozen=True)
class Momentum(Solver):
    """A multistep solver with momentum, see the module.

    Arguments:
        steps: past answers (heavy-ball, nesterov) or velocities (ghvb) in a direction.
        beta: how much of a velocity is new, in (0, 1]; the authors' "order 1.8" is two velocities at 0.8.
        kind: of the momentum.
        prediction: "noise", with Adams' constants for equal steps (PNDM, iPNDM), or "data", i.e. DPM-Solver++ with the midpoint rule.
        corrector: for data: UniPC's, with a velocity of its own. The authors' code overwrites the predictor's velocity by the corrector's.
    """

    steps: int = 2
    beta: float = 0.8
    kind: Kind = "ghvb"
    prediction: Prediction = "noise"
    corrector: bool = False

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ArgumentError("kind", repr(self.kind), f"one of {', '.join(get_args(Kind))}")
        if not 0 < self.beta <= 1:
            raise ArgumentError("beta", self.beta, "a share in (0, 1]")
        most = 5 if self.prediction == "noise" else 3
        if not 1 <= self.steps <= most:
            raise ArgumentError("steps", self.steps, f"1 to {most} with {self.prediction} prediction")
        if self.prediction == "data" and self.kind == "ghvb":
            raise ArgumentError("kind", "'ghvb'", "heavy-ball or nesterov with data prediction", "GHVB averages the noise.")
        if self.prediction == "noise" and self.corrector:
            raise ArgumentError("corrector", True, "data prediction with a corrector")

    @property
    def name(self) -> str:
        solver = {"noise": "plms", "data": "unipc" if self.corrector else "dpm-solver++"}[self.prediction]
        what = f"ghvb-{self.steps}" if self.kind == "ghvb" else f"{self.kind}-{solver}-{self.steps}"
        return f"{what}-beta{self.beta:g}"

    @property
    def order(self) -> int:
        if self.beta == 1:
            return self._split.order(self.steps) + self.corrector
        return min(self.steps, 2) if self.kind == "ghvb" else 1

    def compile(self, process: ScalarProcess, times: Sequence[float]) -> Program:
        times = custom(times)
        table, split = StepTable(process, times), self._split
        predictor, corrector = _Velocity(self, table), _Velocity(self, table)
        base, last = 0, len(times) - 1
        history = [table.node(0, 0)]
        # GHVB starts from all velocities there are
        count = self.steps + (self.kind == "ghvb")
        for i in range(1, last + 1):
            new = predictor.step(base, i, newest(history, count, split, table.half_log_snr[i]))
            if i == last:
                break
            history.append(table.node(new, i))
            if self.corrector:
                new = corrector.step(base, i, newest(history, self.steps + 1, split, table.half_log_snr[i]))
            base = new
        return table.program(self.name)

    @property
    def _split(self) -> Extrapolation:
        return Extrapolation.of("noise", "adams") if self.prediction == "noise" else Extrapolation.of("data", "midpoint")


class _Velocity:
    """The velocity of a predictor, or of a corrector: what its last step made of which row, and by what mean of answers."""

    def __init__(self, how: Momentum, table: StepTable) -> None:
        self.how, self.table, self.split = how, table, how._split
        self.taken = 0
        self.base, self.reached, self.weight = 0, 0, torch.ones(1, dtype=torch.float64)
        self.mean: dict[Node, Tensor] = {}

    def step(self, base: int, i: int, nodes: Sequence[Node]) -> int:
        """A new row at time number `i`, one step from the row `base`."""
        table, split, how = self.table, self.split, self.how
        ends = table.half_log_snr[i - 1], table.half_log_snr[i]
        level = table.alpha[i], table.sigma[i]
        places = [n.half_log_snr for n in nodes]
        if how.kind == "ghvb":
            shares, memory = _ghvb(nodes, how.steps, how.beta, self.taken)
        else:
            mean = dict(zip(nodes, split.shares(*ends, places, level), strict=True))
            shares, memory = self._averaged(mean), 1 - how.beta if self.taken else 0.0
            self.mean = mean
        alone = split.alone(*ends, [n.half_log_snr for n in shares], level)
        # in the terms of a lone answer at the step's beginning, whatever the answer's node
        weight = split.alone(*ends, places[-1:], level)[0] * (math.exp(-places[-1]) if how.prediction == "noise" else 1.0)
        also = self._memory(i, memory * weight / self.weight) if memory else None
        row = table.combine(split, base, i - 1, i, list(shares), [c * w for c, w in zip(shares.values(), alone, strict=True)], also)
        self.taken, self.base, self.reached, self.weight = self.taken + 1, base, row, weight
        return row

    def _averaged(self, mean: dict[Node, Tensor]) -> dict[Node, Tensor]:
        """The direction's means of answers, beside the remembered direction."""
        beta = self.how.beta
        if not self.taken or beta == 1:
            return mean
        if self.how.kind == "heavy-ball":
            return {n: beta * c for n, c in mean.items()}
        # (1 - beta) v + beta p without v: the direction before was (1 - beta) v' + beta p'
        nodes = [*self.mean, *(n for n in mean if n not in self.mean)]
        zero = torch.zeros(1, dtype=torch.float64)
        return {n: beta * (2 - beta) * mean.get(n, zero) - beta * (1 - beta) * self.mean.get(n, zero) for n in nodes}

    def _memory(self, i: int, share: Tensor) -> dict[int, Tensor]:
        """So much of the direction before, `X_b - (s_b / s_a) X_a`, as coefficients of the two states."""
        return {self.reached: share, self.base: -share * self.table.factor(self.split, i - 2, i - 1)}


def ghvb_coefficients(steps: int, beta: float) -> list[float]:
    """`beta` times the shares of the newest velocity, the one before, ... in a direction."""
    denominator, pairs = _GHVB[steps]
    return [(c + d * beta) / denominator for c, d in pairs]


def _ghvb(nodes: Sequence[Node], steps: int, beta: float, taken: int) -> tuple[dict[Node, Tensor], float]:
    """The shares of answers in a direction, and that of the direction before."""

    newest_first = list(reversed(nodes))
    if taken >= steps:
        shares = dict(zip(newest_first, ghvb_coefficients(steps, beta), strict=False))
        memory = 1 - beta
    else:
        # velocity j as a mean of answers: (1 - beta)^j of the first, and beta (1 - beta)^(j - i) of answer i > 0
        n, memory, shares = len(nodes), 0.0, dict.fromkeys(newest_first, 0.0)
        for age, c in enumerate(ghvb_coefficients(min(steps, n), beta)):
            j = n - 1 - age
            for i in range(j + 1):
                shares[nodes[i]] += c / beta * (1 - beta) ** (j - i) * (beta if i else 1.0)
    return {n: torch.tensor([shares[n]], dtype=torch.float64) for n in nodes if shares.get(n)}, memory
