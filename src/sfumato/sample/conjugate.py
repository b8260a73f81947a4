r"""Conjugate integrators: a change of variables takes the stiff linear part out of the probability flow of any linear SDE.

With a prediction `f` that the score is affine in, `score = skip x + out f`, the flow is `dx/dt = L x + C y + N f`, `L = F - Q skip / 2`,
`N = -Q out / 2`. For a frame `P` with `dP/dt = P (B - L)` the variable `z = P x` moves with `dz/dt = P (B x + C y + N f)`, and an Euler step
of `B` with `f` held (or extrapolated through past nodes), all else exact, is

    x_s = P^{-1} [(1 + (s - t) B) x_t + int_t^s P (C y + sum_j l_j(u) N f_j) du],        P = 1 at t.

    f = noise        skip = 0, out = -R^{-T} or -L^{-T} (Cholesky)
    f = data         skip = -S^{-1}, out = S^{-1} A: what a network with skip connections predicts

`B = 0` is the exponential integrator (with the noise: generalised DDIM, DEIS); `B = lam 1` and `B = lam` times the matrix of ones are
"lambda-DDIM" I and II, with `lam` to be tuned for each number of steps. Source: Pandey et al. 2024 (arXiv 2310.07894), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.noise import LinearSDE, Operator
from sfumato.noise.flow_factor import ordered_product
from sfumato.sample.linear_form import Form, identity, noise_factor, noise_form, plus, toward
from sfumato.sample.linear_program import LinearProgram, LinearSolver, LinearTable
from sfumato.sample.schedules import custom

Prediction = Literal["cholesky noise", "noise", "data"]
"""What is held over a step."""

_POINTS = 16
_CELLS = 8


@dataclass(frozen=True)
class Bend:
    """`B`: `lam` times the identity or the matrix of ones, on the channels of a coordinate.

    Arguments:
        size: `lam`.
        kind: which matrix.
    """

    size: float = 0.0
    kind: Literal["identity", "ones"] = "ones"

    def __post_init__(self) -> None:
        if not math.isfinite(self.size) or self.kind not in ("identity", "ones"):
            raise ArgumentError("size, kind", (self.size, self.kind), "a finite number, and identity or ones")

    def operator(self, channels: int) -> Operator:
        """`B` for so many channels."""
        matrix = torch.eye(channels, dtype=torch.float64) if self.kind == "identity" else torch.ones(channels, channels, dtype=torch.float64)
        return Operator(self.size * matrix[None])


@dataclass(frozen=True)
class Conjugate(LinearSolver):
    """The step of the module; one evaluation, order `nodes` for `B = 0` and 1 otherwise.

    Arguments:
        bend: `B`.
        prediction: `f`.
        nodes: through how many of the newest nodes `f` is extrapolated.
    """

    bend: Bend = Bend()
    prediction: Prediction = "cholesky noise"
    nodes: int = 1

    def __post_init__(self) -> None:
        if self.prediction not in get_args(Prediction):
            raise ArgumentError("prediction", repr(self.prediction), f"one of {', '.join(get_args(Prediction))}")
        if not 1 <= self.nodes <= 4:
            raise ArgumentError("nodes", self.nodes, "1 to 4")

    @property
    def name(self) -> str:
        return f"conjugate-{self.prediction.replace(' ', '-')}-{self.bend.kind}{self.bend.size:g}-{self.nodes}"

    def compile(self, process: LinearSDE, times: Sequence[float]) -> LinearProgram:
        times = custom(times)
        table = LinearTable(process, times[:1])
        for i, s in enumerate(times[1:]):
            seen = [i - back for back in range(min(self.nodes, i + 1))]
            step = conjugate_step(process, [times[j] for j in seen], s, self.bend.operator(process.channels), self.prediction)
            forms = {
                j: predicted(process, times[j], self.prediction).under(weight) for j, weight in zip(seen, step.weights, strict=True)
            }
            forms[i] = forms[i] + toward(process, times[i], step.state, step.shift)
            table.add(s, forms)
        return table.program(self.name)


@dataclass(frozen=True, eq=False)
class ConjugateStep:
    """`x_s = state x_t + shift y + sum_j weights_j f_j`."""

    state: Operator
    shift: Operator | None
    weights: tuple[Operator, ...]


def predicted(process: LinearSDE, t: float, prediction: Prediction) -> Form:
    """`f` as a form of the state and the belief there."""
    if prediction == "data":
        return Form(None, identity(1), None)
    return noise_form(process, t, prediction)


def conjugate_step(
    process: LinearSDE, nodes: Sequence[float], s: float, bend: Operator, prediction: Prediction, part: Operator | None = None
) -> ConjugateStep:
    """The step from `nodes[0]` to `s`, with `f` known at all nodes.

    Arguments:
        nodes: the present time, then older ones.
        bend: `B`.
        part: what the flow is multiplied by from the left, for the components of a splitting; all of it if None.
    """
    t = nodes[0]
    at, share = np.polynomial.legendre.leggauss(_POINTS)
    times = t + (s - t) * torch.as_tensor((at + 1) / 2)
    shares = (s - t) / 2 * torch.as_tensor(share)
    rates = _Rates(process, prediction, identity(process.channels) if part is None else part)
    # the last point is s itself, where the frame is inverted
    frames = _frames(rates, bend, t, torch.cat([times, times.new_tensor([s])]))
    inside, back = frames.map(lambda c: c[:-1]), frames.map(lambda c: c[-1]).inverse()
    kernel = inside @ rates.answer(times)
    weights = tuple(back @ _integral(kernel, shares * values) for values in _lagrange(times, nodes))
    gain = rates.gain(times)
    shift = None if gain is None else back @ _integral(inside @ gain, shares)
    return ConjugateStep(back @ (identity(process.channels) + (s - t) * bend), shift, weights)


@dataclass(frozen=True, eq=False)
class _Rates:
    """The flow's coefficients at any times: `L` (`linear`), `C` (`gain`) and `N` (`answer`), each multiplied by `part`."""

    process: LinearSDE
    prediction: Prediction
    part: Operator

    def linear(self, t: Tensor) -> Operator:
        law = self.process.coefs(t)
        if self.prediction != "data":
            return self.part @ law.phi
        return self.part @ (law.phi + 0.5 * (law.covariance @ self.process.marginal(t).covariance.inverse()))

    def gain(self, t: Tensor) -> Operator | None:
        gain, moved = self.process.coefs(t).shift, self.process.marginal(t).shift
        if self.prediction == "data" and moved is not None:
            pull = self.process.coefs(t).covariance @ self.process.marginal(t).covariance.inverse() @ moved
            gain = plus(gain, -0.5 * pull)
        return None if gain is None else self.part @ gain

    def answer(self, t: Tensor) -> Operator:
        noise = self.process.coefs(t).covariance
        if self.prediction == "data":
            law = self.process.marginal(t)
            return self.part @ (-0.5 * (noise @ law.covariance.inverse() @ law.phi))
        return self.part @ (0.5 * (noise @ noise_factor(self.process, t, self.prediction).inverse().T))


def _frames(rates: _Rates, bend: Operator, t: float, ends: Tensor) -> Operator:
    """`P` at the ends, from the identity at `t`: Magnus steps of order 4 on equal cells."""
    h = (ends - t) / _CELLS
    left = t + h[:, None] * torch.arange(_CELLS, dtype=torch.float64)
    gauss = [(left + g * h[:, None]).flatten().clamp(min=0.0) for g in (0.5 - math.sqrt(3) / 6, 0.5 + math.sqrt(3) / 6)]
    first, second = (bend + -1.0 * rates.linear(u) for u in gauss)
    width = h.repeat_interleave(_CELLS)[:, None, None, None]
    # transposed, dP^T/dt = (B - L)^T P^T, so that later factors stand to the left
    a, b = first.coef.mT, second.coef.mT
    steps = torch.linalg.matrix_exp(width / 2 * (a + b) + math.sqrt(3) / 12 * width**2 * (b @ a - a @ b))
    return Operator(ordered_product(steps.reshape(len(ends), _CELLS, *steps.shape[1:]), -4).mT, first.basis or second.basis)


def _lagrange(times: Tensor, nodes: Sequence[float]) -> list[Tensor]:
    out = []
    for own in nodes:
        value = torch.ones_like(times)
        for other in (v for v in nodes if v != own):
            value = value * (times - other) / (own - other)
        out.append(value)
    return out


def _integral(values: Operator, shares: Tensor) -> Operator:
    return values.map(lambda c: torch.tensordot(shares, c, 1))
