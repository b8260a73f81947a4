r"""Diffusions with a metric and a symplectic form that change from place to place, and one stationary law `exp(-H)` for all of them.

    dx = beta(t)/2 [-(R + W) grad H + div(R + W)] dt + sqrt(beta(t) R) dw,        (div M)_i = sum_j d_j M_ij,

`R(x)` symmetric and positive definite, `W(x)` antisymmetric. Their transitions are not Gaussian: they can be simulated, and reversed with a
score, but there is no closed `x_t | x_0`. Sources: Ma, Chen & Fox 2015 (arXiv 1506.04696), theorem 1; Du et al. 2023 (arXiv 2206.10365).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError, ShapeError
from sfumato.noise.linear_family.clock import Clock
from sfumato.noise.process import as_time
from sfumato.seeds import Noise

Field = Callable[[Tensor], Tensor]
"""`(batch, d) -> (batch, d, d)`, differentiable."""


def _identity(x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True)
class CompleteRecipe:
    """A process on vectors `(batch, d)`, see the module.

    Arguments:
        metric: `R`.
        rotation: `W`.
        clock: `beta`.
        slope: `grad H`, `(batch, d) -> (batch, d)`; the default `x` has the stationary law `N(0, I)`.
    """

    metric: Field
    rotation: Field
    clock: Clock = field(default_factory=Clock)
    slope: Callable[[Tensor], Tensor] = _identity

    def drift(self, x: Float[Tensor, "batch d"], t: float) -> Float[Tensor, "batch d"]:
        """`beta/2 [-(R + W) grad H + div(R + W)]`.

        Raises:
            ArgumentError: `W` is not antisymmetric, or `R` not symmetric: the law `exp(-H)` would not be stationary.
        """
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            metric, rotation = self.metric(at), self.rotation(at)
            skew = max(float((metric - metric.mT).detach().abs().max()), float((rotation + rotation.mT).detach().abs().max()))
            if skew > 1e-6 * (1 + float(metric.detach().abs().max())):
                raise ArgumentError("metric, rotation", f"symmetries broken by {skew:.3g}", "R = R^T and W = -W^T")
            both = metric + rotation
            spread = _divergence(both, at)
        pull = (both.detach() @ self.slope(x)[..., None])[..., 0]
        return self._speed(t) / 2 * (spread - pull)

    def noise(self, x: Float[Tensor, "batch d"], t: float, draw: Float[Tensor, "batch d"]) -> Float[Tensor, "batch d"]:
        """`sqrt(beta R) draw`, with the Cholesky factor.

        Raises:
            ArgumentError: `R` is not positive definite somewhere.
        """
        root, failed = torch.linalg.cholesky_ex(self.metric(x).detach())
        if bool((failed != 0).any()):
            raise ArgumentError("metric", f"not positive definite at {int((failed != 0).sum())} points", "R > 0")
        return math.sqrt(self._speed(t)) * (root @ draw[..., None])[..., 0]

    def simulate(self, x: Float[Tensor, "batch d"], times: Sequence[float], noise: Noise) -> Float[Tensor, "batch d"]:
        """The state at `times[-1]`, by Euler steps from `x` at `times[0]`, forward in time; step `i` uses draw `i`, from 1.

        Raises:
            ShapeError: draws of another shape.
            ArgumentError: times that do not rise.
        """
        if (len(noise), *noise.event) != tuple(x.shape):
            raise ShapeError("noise", (len(noise), *noise.event), f"draws of the state's shape, {tuple(x.shape)}")
        for i, (s, t) in enumerate(pairwise(times), 1):
            if not 0 <= s < t <= 1:
                raise ArgumentError("times", (s, t), "times in [0, 1] that rise")
            x = x + (t - s) * self.drift(x, s) + math.sqrt(t - s) * self.noise(x, s, noise.draw(i).to(x))
        return x

    def _speed(self, t: float) -> float:
        return float(self.clock.rate(as_time(t)))


def _divergence(field: Tensor, x: Tensor) -> Tensor:
    """`sum_j d_j M_ij`, `(batch, d)`; 0 where the field does not depend on `x`."""
    d = x.shape[1]
    if not field.requires_grad:
        return torch.zeros_like(x)
    rows = []
    for i in range(d):
        total = torch.zeros_like(x[:, 0])
        for j in range(d):
            (slope,) = torch.autograd.grad(field[:, i, j].sum(), x, retain_graph=True, materialize_grads=True)
            total = total + slope[:, j]
        rows.append(total)
    return torch.stack(rows, 1).detach()
