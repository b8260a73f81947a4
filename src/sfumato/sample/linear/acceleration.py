r"""Samplers that integrate an acceleration: position and velocity on their way to data, in steered time `1 - t`.

    dx = v,        dv = a(m, t) + g dw,        a = C D + F m (the velocity's rows of the steered process) - (1 - eta^2)/2 g^2 score_v

for `eta = 1` (the SDE) or 0 (the flow), `m = (x, v)`. The velocity already points at the data, so that a belief `D` read off early is good:
samplers stop at some `t > 0` and the answer is the belief there (early exit). With `Phi_h = [[1, h], [0, 1]]` and the acceleration's own
scale `z(t)`, the deviation of `a` given the data, a step of `h = t - s` is

    flow    m_s = Phi_h m_t + sum_j [int_t^s Phi(s, u) (0, z(u)) l_j(u) du] a_j / z_j        extrapolated through past nodes
    SDE     half a step without acceleration and its noise, exactly; a kick `h a` at half time; the other half.

Source: Chen et al. 2024 (ICLR; arXiv 2310.07805).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.noise import Backwards, LinearSDE, Operator, Time
from sfumato.sample.linear.linear_form import Form
from sfumato.sample.linear.linear_program import LinearProgram, LinearSolver, LinearTable
from sfumato.sample.times.schedules import custom


@dataclass(frozen=True)
class Acceleration:
    """The acceleration of a steered process as a view of the belief about the data, and back.

    Arguments:
        process: with channels (x, v), noise on the velocity alone, and `dx = v` in steered time.
        eta: 1 for the SDE's acceleration, 0 for the flow's.

    Raises:
        ArgumentError: another process, or an `eta` below 0.
    """

    process: LinearSDE
    eta: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.process, Backwards) or self.process.channels != 2 or not 0 <= self.eta <= 1:
            given = type(self.process).__name__, self.process.channels, self.eta
            raise ArgumentError("process, eta", given, "a steered process with 2 channels such as agm(), eta in [0, 1]")

    def form(self, t: Time) -> Form:
        """`a` in terms of the state `m` and the data."""
        return Form(*self._parts(t))

    def _parts(self, t: Time) -> tuple[Operator, Operator]:
        """What of `a` acts on the state and what on the data: minus the reverse drift of the velocity."""
        forward, law = self.process.coefs(t), self.process.marginal(t)
        if forward.shift is None:
            raise ArgumentError("process", type(self.process).__name__, "one that is steered to its data")
        pull = (1 + self.eta**2) / 2 * (forward.covariance @ law.covariance.inverse())
        own, towards = forward.phi + pull, forward.shift - pull @ law.phi
        return -1.0 * own.map(_velocity), -1.0 * towards.map(_velocity)

    def of(self, data: Float[Tensor, "batch *event"], state: Tensor, t: Time) -> Float[Tensor, "batch *event"]:
        """The acceleration towards the data at a state `(batch, 2, *event)`; its regression on the state is that of the belief."""
        own, towards = self._parts(t)
        return own.apply(state) + towards.apply(data)

    def data(self, acceleration: Float[Tensor, "batch *event"], state: Tensor, t: Time) -> Float[Tensor, "batch *event"]:
        """The belief about the data that an acceleration stands for."""
        own, towards = self._parts(t)
        return towards.solve(acceleration - own.apply(state))

    def scale(self, t: Time) -> Tensor:
        """`z(t)`: the deviation of the acceleration given the data, float64, `()` or `(batch,)`."""
        own, _ = self._parts(t)
        return (own @ self.process.marginal(t).covariance.cholesky()).coef.square().sum((-1, -2, -3)).sqrt()


def _velocity(coef: Tensor) -> Tensor:
    return coef[..., 1:, :]


def _drift(h: Tensor) -> Tensor:
    """`Phi_h`, `(*shape, 1, 2, 2)`."""
    one, zero = torch.ones_like(h), torch.zeros_like(h)
    return torch.stack([torch.stack([one, h], -1), torch.stack([zero, one], -1)], -2)[..., None, :, :]


def _quadrature(t: float, s: float, points: int = 12) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre times between `t` and `s < t`, and their shares of the step."""
    at, share = np.polynomial.legendre.leggauss(points)
    return torch.as_tensor((t + s) / 2 + (t - s) / 2 * at), torch.as_tensor(share) * (t - s) / 2


@dataclass(frozen=True)
class AccelerationFlow(LinearSolver):
    """The flow's exponential integrator, one evaluation a step; end it above 0 and ask for the belief there.

    Arguments:
        nodes: through how many of the newest nodes the acceleration over its scale is extrapolated. The order is 1 or 2: the first step
            has one node, which a third later on cannot mend.
    """

    nodes: int = 2

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= 3:
            raise ArgumentError("nodes", self.nodes, "1 to 3")

    @property
    def name(self) -> str:
        return f"acceleration-flow-{self.nodes}"

    def compile(self, process: LinearSDE, times: Sequence[float]) -> LinearProgram:
        times, view = custom(times), Acceleration(process)
        table, nodes = LinearTable(process, times[:1]), [view.form(t) for t in times[:-1]]
        grid = [_quadrature(t, s) for t, s in pairwise(times)]
        scales = view.scale(torch.tensor(times, dtype=torch.float64)).tolist()
        between = view.scale(torch.cat([u for u, _ in grid])).reshape(len(grid), -1)
        for i, (t, s) in enumerate(pairwise(times)):
            seen, (u, share) = [i - back for back in range(min(self.nodes, i + 1))], grid[i]
            moved = share * between[i]
            weight = torch.stack([moved * (u - s), moved], 1)
            forms: dict[int, Form] = {}
            for j in seen:
                part = torch.ones_like(u)
                for k in (k for k in seen if k != j):
                    part = part * (u - times[k]) / (times[j] - times[k])
                forms[j] = nodes[j].under(Operator((part[:, None] * weight).sum(0)[None, :, None] / scales[j]))
            forms[i] = forms[i] + Form(Operator(_drift(torch.tensor(t - s, dtype=torch.float64))))
            table.add(s, forms)
        return table.program(self.name)


@dataclass(frozen=True)
class AccelerationSplitting(LinearSolver):
    """The SDE, split symmetrically: noise and free flight, a kick at half time, noise and free flight. One evaluation and two draws a
    step; weak order 1, since the kick is Euler's and depends on the velocity."""

    @property
    def name(self) -> str:
        return "acceleration-splitting"

    def compile(self, process: LinearSDE, times: Sequence[float]) -> LinearProgram:
        times, view = custom(times), Acceleration(process, 1.0)
        table, last = LinearTable(process, times[:1]), 0
        for t, s in pairwise(times):
            middle, h = (t + s) / 2, t - s
            flight = Operator(_drift(torch.tensor(h / 2, dtype=torch.float64)))
            last = table.add(middle, {last: Form(flight)}, _free_noise(process, t, middle))
            kick = Operator(torch.tensor([[[0.0], [h]]], dtype=torch.float64))
            last = table.add(s, {last: Form(flight) + view.form(middle).under(flight @ kick)}, _free_noise(process, middle, s))
        return table.program(self.name)


def _free_noise(process: LinearSDE, t: float, s: float) -> Operator:
    """A factor of the covariance that noise alone leaves between `t` and `s < t`: `int Phi Q Phi^T`."""
    u, share = _quadrature(t, s)
    flight = _drift(u - s)
    spread = flight @ process.coefs(u).covariance.coef @ flight.mT
    return Operator((share[:, None, None, None] * spread).sum(0)).cholesky()
