r"""Conjugate integrators: a change of variables takes the stiff linear part out of the probability flow of any linear SDE.

With a prediction `f` that the score is affine in, `score = skip x + out f`, the flow is `dx/dt = L x + C y + N f`, `L = F - Q skip / 2`,
`N = -Q out / 2`. For a frame `P` with `dP/dt = P (B - L)` the variable `z = P x` has `dz/dt = P (B x + C y + N f)`, and an Euler step of
`B` with `f` held (or extrapolated through past nodes), all else exact, is

    x_s = P^{-1} [(1 + (s - t) B) x_t + int_t^s P (C y + sum_j l_j(u) N f_j) du],        P = 1 at t.

    f = noise        skip = 0, out = -R^{-T} or -L^{-T} (Cholesky)
    f = score        skip = 0, out = 1
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
from sfumato.noise.linear_family.flow_factor import ordered_product
from sfumato.sample.linear.linear_form import Form, Forms, identity, plus
from sfumato.sample.linear.linear_program import LinearProgram, LinearSolver, LinearTable
from sfumato.sample.times.schedules import custom

Prediction = Literal["cholesky noise", "noise", "data", "score"]
"""What is held over a step."""

_POINTS = 8
_CELLS = 4


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
        matrix = (
            torch.eye(channels, dtype=torch.float64) if self.kind == "identity" else torch.ones(channels, channels, dtype=torch.float64)
        )
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
        table, forms, bend = LinearTable(process, times[:1]), Forms(process, times[:-1]), self.bend.operator(process.channels)
        for i, (t, s) in enumerate(pairwise(times)):
            seen = [i - back for back in range(min(self.nodes, i + 1))]
            frame = Frame(process, t, bend, self.prediction)
            shift, weights = frame.integrals(t, s, [times[j] for j in seen])
            step = {j: predicted(forms, times[j], self.prediction).under(w) for j, w in zip(seen, weights, strict=True)}
            step[i] = step[i] + forms.toward(t, forms.one + (s - t) * bend, shift)
            back = frame.back(s)
            table.add(s, {j: form.under(back) for j, form in step.items()})
        return table.program(self.name)


def predicted(forms: Forms, t: float, prediction: Prediction) -> Form:
    """`f` as a form of the state and the belief there."""
    if prediction == "data":
        return Form(None, identity(1), None)
    return forms.score(t) if prediction == "score" else forms.noise(t, prediction)


class Frame:
    """The frame `P` of a step from `t`, where it is the identity.

    Arguments:
        bend: `B`.
        prediction: `f`.
        part: what the flow is multiplied by from the left: a projection, for the components of a splitting.
    """

    def __init__(self, process: LinearSDE, t: float, bend: Operator, prediction: Prediction, part: Operator | None = None) -> None:
        self.t, self.bend = t, bend
        self._rates = _Rates(process, prediction, identity(process.channels) if part is None else part)

    def at(self, ends: Tensor) -> Operator:
        """`P` at the ends `(n,)`: Magnus steps of order 4 on equal cells."""
        h = (ends - self.t) / _CELLS
        left = self.t + h[:, None] * torch.arange(_CELLS, dtype=torch.float64)
        gauss = [(left + g * h[:, None]).flatten().clamp(min=0.0) for g in (0.5 - math.sqrt(3) / 6, 0.5 + math.sqrt(3) / 6)]
        first, second = (self.bend - self._rates.linear(u) for u in gauss)
        width = h.repeat_interleave(_CELLS)[:, None, None, None]
        # transposed, dP^T/dt = (B - L)^T P^T, so that later factors stand to the left
        a, b = first.coef.mT, second.coef.mT
        steps = torch.linalg.matrix_exp(width / 2 * (a + b) + math.sqrt(3) / 12 * width**2 * (b @ a - a @ b))
        return Operator(ordered_product(steps.reshape(len(ends), _CELLS, *steps.shape[1:]), -4).mT, first.basis)

    def back(self, s: float) -> Operator:
        """`P^{-1}` at `s`."""
        return self.at(torch.tensor([s], dtype=torch.float64)).inverse().map(lambda c: c[0])

    def integrals(self, start: float, end: float, nodes: Sequence[float]) -> tuple[Operator | None, list[Operator]]:
        """`int P C du` and `int P N l_j du` for every node, from `start` to `end`, by Gauss-Legendre quadrature."""
        at, share = np.polynomial.legendre.leggauss(_POINTS)
        times = start + (end - start) * torch.as_tensor((at + 1) / 2)
        shares = (end - start) / 2 * torch.as_tensor(share)
        frames, gain = self.at(times), self._rates.gain(times)
        kernel = frames @ self._rates.answer(times)
        shift = None if gain is None else _integral(frames @ gain, shares)
        return shift, [_integral(kernel, shares * values) for values in _lagrange(times, nodes)]


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
        if self.prediction == "score":
            return self.part @ (-0.5 * noise)
        flowing = self.prediction == "noise"
        factor = self.process.flow_factor(t) if flowing else self.process.marginal(t).covariance.cholesky()
        return self.part @ (0.5 * (noise @ factor.inverse().T))


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
