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

from sfumato.errors import ArgumentError
from sfumato.noise import LinearSDE, exponential_step
from sfumato.sample.linear.linear_form import Form, Forms
from sfumato.sample.linear.linear_program import LinearProgram, LinearSolver, LinearTable
from sfumato.sample.times.schedules import custom


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
        table, forms = LinearTable(process, times[:1]), Forms(process, times)
        for i, (t, s) in enumerate(pairwise(times)):
            if self.nodes > 1:
                table.add(s, self._multistep(forms, times, i))
                continue
            law = forms.marginal(s)
            carried = forms.residual(t).under(forms.factor(s) @ forms.factor(t).inverse())
            table.add(s, {i: Form(None, law.phi, law.shift) + carried})
        return table.program(self.name)

    def _multistep(self, forms: Forms, times: Sequence[float], i: int) -> dict[int, Form]:
        seen = [i - back for back in range(min(self.nodes, i + 1))]
        step = exponential_step(forms.process, [times[j] for j in seen], times[i + 1])
        out = {j: forms.noise(times[j]).under(weight) for j, weight in zip(seen, step.weights, strict=True)}
        out[i] = out[i] + forms.toward(times[i], step.phi, step.shift)
        return out


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
        table, forms = LinearTable(process, times[:1]), Forms(process, times[:-1])
        for i, (t, s) in enumerate(pairwise(times)):
            step = Form(forms.one) + forms.reverse(t, self.eta).scaled(s - t)
            noise = (self.eta * math.sqrt(t - s)) * forms.coefs(t).covariance.cholesky() if self.eta else None
            table.add(s, {i: step}, noise)
        return table.program(self.name)
