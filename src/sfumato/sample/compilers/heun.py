r"""Heun's method in `y = x / alpha` over `k = sigma / alpha`, where the probability flow is `dy/dk = (y - D) / k` (Karras et al. 2022,
arXiv 2206.00364, algorithm 1, without churn).

An Euler step, which is DDIM, predicts the new state; a second evaluation there gives the mean of the two slopes: the member "heun" of
`runge_kutta`. Steps with an infinite end are Euler steps: at `k = 0` the slope is 0/0, and from `alpha = 0` the mean slope diverges while
Euler's limit is `x_i = (sigma_i / sigma_b) x_b + alpha_i D`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sfumato.sample.compilers.runge_kutta import Over, RungeKutta


@dataclass(frozen=True)
class Heun(RungeKutta):
    """Two evaluations a step, one on Euler steps; see the module."""

    method: str = field(default="heun", init=False)
    over: Over = field(default="ratio", init=False)

    @property
    def name(self) -> str:
        return "heun"
