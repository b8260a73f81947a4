r"""Samplers under any member of the linear SDE family, one evaluation a step, from `t` to `s < t`:

    generalised DDIM    x_s = A_s D + O_s y + R_s R_t^{-1} (x_t - A_t D - O_t y)        exact in one step for data at a point
    its multistep form  x_s = Phi(s, t) x_t + ... + sum_j W_j eps_j                     eps extrapolated through past nodes
    ancestral           x_s ~ q(x_s | x_t, x_0 = D)                                     the posterior of the process
    Euler               x_s = x_t - (t - s) (F x_t + C y - (1 + eta^2)/2 Q score) + eta sqrt(t - s) Q^{1/2} eps

With the flow factor `R`, `dR/dt = (F + Q S^{-1} / 2) R`; under a scalar process the first is DDIM and `eta = 1` Euler-Maruyama.
Source: Zhang et al. 2023 (arXiv 2206.05564), eqs. 17-22.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from sfumato.errors import ArgumentError
from sfumato.noise import LinearSDE, Operator, exponential_step
from sfumato.sample.linear_form import Form, identity, noise_form, residual, reverse_form, toward
from sfumato.sample.linear_program import LinearProgram, LinearSolver, LinearTable
from sfumato.sample.schedules import custom


@dataclass(frozen=True)
class LinearDDIM(LinearSolver):
    """Generalised DDIM, see the module.

    Arguments:
        nodes: through how many nodes, the newest ones, the noise is extrapolated: the order of convergence. The first steps use what
            there is.
    """

    nodes: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= 4:
            raise ArgumentError("nodes", self.nodes, "1 to 4")

    @property
    def name(self) -> str:
        return "generalised-ddim" if self.nodes == 1 else f"generalised-ddim-{self.nodes}"

    def compile(self, process: LinearSDE, times: Sequence[float]) -> LinearProgram:
        times = custom(times)
        table = LinearTable(process, times[:1])
        factors = process.flow_factor(torch.tensor(times, dtype=torch.float64)) if self.nodes == 1 else None
        for i, (t, s) in enumerate(pairwise(times)):
            if factors is not None:
                here, there = (Operator(factors.coef[k], factors.basis) for k in (i, i + 1))
                table.add(s, {i: _signal(process, s) + residual(process, t).under(there @ here.inverse())})
            else:
                table.add(s, self._multistep(process, times, i))
        return table.program(self.name)

    def _multistep(self, process: LinearSDE, times: Sequence[float], i: int) -> dict[int, Form]:
        seen = [i - back for back in range(min(self.nodes, i + 1))]
        step = exponential_step(process, [times[j] for j in seen], times[i + 1])
        forms = {j: noise_form(process, times[j]).under(weight) for j, weight in zip(seen, step.weights, strict=True)}
        forms[i] = forms[i] + toward(process, times[i], step.phi, step.shift)
        return forms


def _signal(process: LinearSDE, s: float) -> Form:
    """`A_s D + O_s y`."""
    law = process.marginal(s)
    return Form(None, law.phi, law.shift)


@dataclass(frozen=True)
class LinearAncestral(LinearSolver):
    """A draw of the process's posterior with the belief in place of the data. Row `i` uses draw `i`."""

    @property
    def name(self) -> str:
        return "linear-ancestral"

    def compile(self, process: LinearSDE, times: Sequence[float]) -> LinearProgram:
        times = custom(times)
        table = LinearTable(process, times[:1])
        for i, (t, s) in enumerate(pairwise(times)):
            law = process.posterior(s, t)
            table.add(s, {i: Form(law.end, law.start, law.shift)}, law.covariance.cholesky())
        return table.program(self.name)


@dataclass(frozen=True)
class LinearEuler(LinearSolver):
    """Euler's step of the flow (`eta = 0`), or Euler-Maruyama's of the reverse SDE (1), of more noise or less. Row `i` uses draw `i`.

    Arguments:
        eta: the noise put in, in units of the process's own.
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta < math.inf:
            raise ArgumentError("eta", self.eta, "a number of at least 0")

    @property
    def name(self) -> str:
        return f"linear-euler-eta{self.eta:g}"

    def compile(self, process: LinearSDE, times: Sequence[float]) -> LinearProgram:
        times = custom(times)
        table = LinearTable(process, times[:1])
        for i, (t, s) in enumerate(pairwise(times)):
            step = Form(identity(process.channels)) + reverse_form(process, t, self.eta).scaled(s - t)
            noise = (self.eta * math.sqrt(t - s)) * process.coefs(t).covariance.cholesky() if self.eta else None
            table.add(s, {i: step}, noise)
        return table.program(self.name)
