r"""Steps of the probability flow that are exact in its linear part.

With `f` the score or the noise, `dx/dt = F x + C y + k f` (`k = -Q/2` for the score, `Q R^{-T}/2` for the noise), and `f` replaced by the
polynomial through its values at the nodes `t = t_0, t_1, ...`:

    x_s = Phi(s, t) x_t + shift + sum_j W_j f(t_j),      W_j = int_t^s Phi(s, u) k(u) l_j(u) du,

by Gauss-Legendre quadrature. One node and the noise, with the flow factor: generalised DDIM (Zhang et al. 2023, arXiv 2206.05564, eq. 22).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.noise.linear_family.linear_law import plus_shift
from sfumato.noise.linear_family.linear_sde import LinearSDE
from sfumato.noise.linear_family.operator import Operator


@dataclass(frozen=True, eq=False)
class ExponentialStep:
    """`x_s = phi x_t + shift y + sum_j weights_j f_j`."""

    phi: Operator
    shift: Operator | None
    weights: tuple[Operator, ...]

    def __call__(self, x: Tensor, predictions: Sequence[Tensor], condition: Tensor | None = None) -> Tensor:
        """The next state, of the present one and the predictions at the nodes.

        Raises:
            ArgumentError: not one prediction per node.
        """
        if len(predictions) != len(self.weights):
            raise ArgumentError("predictions", f"{len(predictions)} of them", f"one per node, {len(self.weights)}")
        moved = plus_shift(self.phi.apply(x), self.shift, condition)
        for weight, prediction in zip(self.weights, predictions, strict=True):
            moved = moved + weight.apply(prediction)
        return moved


def exponential_step(
    process: LinearSDE, nodes: Sequence[float], s: int | float, view: Literal["score", "noise"] = "noise", *, points: int = 24
) -> ExponentialStep:
    """The step from `nodes[0]` to `s < nodes[0]` with a prediction known at all nodes.

    Arguments:
        nodes: the present time, then those of older predictions.
        s: where the step ends.
        view: what the predictions are.
        points: how many quadrature points.

    Raises:
        ArgumentError: nodes that repeat, or a step that does not go towards clean data.
    """
    t = float(nodes[0]) if nodes else 0.0
    if not 0 <= s < t <= 1 or len(set(nodes)) != len(nodes):
        raise ArgumentError("nodes, s", (tuple(nodes), s), "different times in [0, 1], the first later than s")
    if view not in ("score", "noise"):
        raise ArgumentError("view", repr(view), "score or noise")
    at, share = np.polynomial.legendre.leggauss(points)
    times = torch.as_tensor(s + (t - s) * (at + 1) / 2)
    kernel = process.transition(s, times).phi.inverse() @ _coefficient(process, times, view)
    lagrange = [torch.ones_like(times) for _ in nodes]
    for j, own in enumerate(nodes):
        for other in (v for v in nodes if v != own):
            lagrange[j] = lagrange[j] * (times - other) / (own - other)
    # the integral runs from t down to s
    shares = -torch.as_tensor(share) * (t - s) / 2
    weights = tuple(Operator(torch.tensordot(shares * part, kernel.coef, 1), kernel.basis) for part in lagrange)
    law = process.transition(s, t)
    back = law.phi.inverse()
    return ExponentialStep(back, None if law.shift is None else -1.0 * (back @ law.shift), weights)


def _coefficient(process: LinearSDE, times: Tensor, view: str) -> Operator:
    noise = process.coefs(times).covariance
    return -0.5 * noise if view == "score" else 0.5 * (noise @ process.flow_factor(times).inverse().T)
