r"""The reverse SDE, and the flow beside it, stepped plainly in time: the first samplers of score-based models, as tables.

    dx = [F x - w g^2 s(x, t)] dt + g dw,        s = (alpha D - x) / sigma^2,        w = 1 (SDE) or 1/2 (flow, without noise).

From `t` to `s = t - h`, with the forward transition `x_t | x_s ~ N(phi x_s, q)`:

    euler       X_s = X_t - h (F X_t - w g^2 s) + g sqrt(h) eps          at any process with finite F and g at t
    diffusion   X_s = (2 - phi) X_t + w q s + sqrt(q) eps                "reverse diffusion": F and g of the forward discretisation
    large       X_s = (X_t + q s) / phi + sqrt(q) eps                    DDPM's mean with the larger of its two variances

`large` differs from `Ancestral(1.0)` (the exact posterior's variance `q sigma_s^2 / sigma_t^2`) in its noise alone. Source: Song et al.
2021 (arXiv 2011.13456).

`ImprovedEuler` is Euler's step and, with the same noise, the mean of the slopes at both ends (weak order 2): Jolicoeur-Martineau et al.
2021 (arXiv 2105.14080), with a fixed step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.noise import ScalarProcess, Time
from sfumato.sample.program import Program, Row
from sfumato.sample.solver import Solver
from sfumato.sample.times.schedules import custom

Rule = Literal["euler", "diffusion", "large"]
"""How the reverse SDE is stepped, see the module's table."""


def reverse_drift(process: ScalarProcess, t: Time, weight: float = 1.0) -> tuple[Tensor, Tensor]:
    """`(a, b)` of the backward equation's drift `dx/dt = a x + b D`: `a = F + w g^2 / sigma^2`, `b = -w g^2 alpha / sigma^2`, float64.

    Raises:
        ArgumentError: a time at which they are infinite.
    """
    alpha, sigma = process.levels(t)
    pull = weight * process.diffusion_squared(t) / sigma**2
    a, b = process.drift(t) + pull, -pull * alpha
    if not bool((torch.isfinite(a) & torch.isfinite(b)).all()):
        raise ArgumentError("t", t, "times at which the reverse drift is finite", "Stop above t = 0, and start where there is signal.")
    return a, b


@dataclass(frozen=True)
class ReverseSDE(Solver):
    """One evaluation a step, see the module. Row `i` uses draw `i`.

    Arguments:
        rule: how a step is made.
        flow: half of the score and no noise: the probability flow.
    """

    rule: Rule = "euler"
    flow: bool = False

    def __post_init__(self) -> None:
        if self.rule not in get_args(Rule):
            raise ArgumentError("rule", repr(self.rule), f"one of {', '.join(get_args(Rule))}")
        if self.flow and self.rule == "large":
            raise ArgumentError("flow", True, "False with the rule `large`", "Its mean is that of a stochastic step.")

    @property
    def name(self) -> str:
        return f"reverse-{'flow' if self.flow else 'sde'}-{self.rule}"

    @property
    def deterministic(self) -> bool:
        return self.flow

    def compile(self, process: ScalarProcess, times: Sequence[float]) -> Program:
        times = custom(times)
        rows = [Row()]
        for i in range(1, len(times)):
            state, answer, fresh = self._step(process, times[i - 1], times[i])
            rows.append(Row({i - 1: _one(state)}, {i - 1: _one(answer)}, {} if self.flow else {i: _one(fresh)}))
        return Program(self.name, process, times, tuple(rows))

    def _step(self, process: ScalarProcess, t: float, s: float) -> tuple[float, float, float]:
        """The coefficients of the state, the answer and the noise."""
        weight = 0.5 if self.flow else 1.0
        if self.rule == "euler":
            a, b = (float(v) for v in reverse_drift(process, t, weight))
            return 1 - (t - s) * a, -(t - s) * b, math.sqrt(float(process.diffusion_squared(t)) * (t - s))
        forward = process.transition(s, t)
        phi, q = float(forward.phi), float(forward.covariance)
        alpha, sigma = (float(v) for v in process.levels(t))
        pull = weight * q / sigma**2
        if self.rule == "diffusion":
            return 2 - phi - pull, pull * alpha, math.sqrt(q)
        if phi == 0:
            raise ArgumentError("times", t, "a start with some signal left", "The rule `large` divides by the signal that is left.")
        return (1 - pull) / phi, pull * alpha / phi, math.sqrt(q)


@dataclass(frozen=True)
class ImprovedEuler(Solver):
    """Two evaluations and one draw a step, see the module; times have to end above 0. Row `2 i - 1` is the proposal, with its draw."""

    @property
    def name(self) -> str:
        return "improved-euler-sde"

    @property
    def deterministic(self) -> bool:
        return False

    def compile(self, process: ScalarProcess, times: Sequence[float]) -> Program:
        times = custom(times)
        rows, nodes, last = [Row()], [times[0]], 0
        for t, s in pairwise(times):
            h, new = t - s, last + 1
            (a, b), (c, d) = ([float(v) for v in reverse_drift(process, u)] for u in (t, s))
            noises = [math.sqrt(float(process.diffusion_squared(u)) * h) for u in (t, s)]
            rows.append(Row({last: _one(1 - h * a)}, {last: _one(-h * b)}, {new: _one(noises[0])}))
            states = {last: _one(1 - h * a / 2), new: _one(-h * c / 2)}
            rows.append(Row(states, {last: _one(-h * b / 2), new: _one(-h * d / 2)}, {new: _one(sum(noises) / 2)}))
            nodes += [s, s]
            last = new + 1
        return Program(self.name, process, tuple(nodes), tuple(rows))


def _one(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)
