r"""The rungs between a training set's denoiser and its Gaussian's.

The denoiser of `N` points weighs them by `w_i ~ exp(-|x - alpha x_i|^2 / 2 sigma^2)`. As noise grows it becomes, one after the other,

| rung | answer | what is dropped |
|---|---|---|
| nearest | the point nearest to `x / alpha` | all but the largest weight (exact as `sigma -> 0`) |
| points | `sum_i w_i x_i` | nothing |
| tilted | `sum_i u_i x_i`, `u_i ~ exp(alpha x.x_i / sigma^2)` | `|x_i|^2`: the points' own lengths |
| gaussian | `m + alpha Sigma (alpha^2 Sigma + sigma^2)^-1 (x - alpha m)` | third and higher cumulants |
| second | `m + (alpha Sigma / sigma^2 - alpha^3 Sigma^2 / sigma^4)(x - alpha m)` | third and higher orders in `alpha^2 Sigma / sigma^2` |
| first | `m + (alpha Sigma / sigma^2)(x - alpha m)` | second and higher orders |

Products in "tilted" are taken with `x - alpha m` and `x_i - m`. Source: Wang & Vastola 2024 (arXiv 2412.09726), sections 3 and 4.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.exact.laws.empirical import Empirical
from sfumato.exact.laws.gaussian import Gaussian
from sfumato.exact.laws.softmax import SCORES
from sfumato.noise import ScalarProcess, Time


class NearestPoint(Denoiser):
    """The training point nearest to `x / alpha`; the mean of the points where no signal is left."""

    def __init__(self, points: Empirical, process: ScalarProcess) -> None:
        self.points, self.process = points, process

    def denoise(self, x: Tensor, t: Time, condition: Tensor | None = None) -> Tensor:
        alpha = self.process.alpha(t).to(x.device).reshape(-1, *[1] * (x.ndim - 1))
        clean = x.to(torch.float64) / torch.where(alpha == 0, 1.0, alpha)
        nearest = self.points.posterior_mean(clean, self.process, 0.0)
        mean = self.points.mean.to(torch.float64).reshape(self.points.event_shape)
        return torch.where(alpha == 0, mean, nearest).to(x.dtype)


class TiltedPoints(Denoiser):
    """The points weighed by their scalar product with `x` alone, as in attention.

    Arguments:
        points: `(N, *event)`; kept, not copied.
        process: what made `x_t` of them.
    """

    def __init__(self, points: Float[Tensor, "N *event"], process: ScalarProcess) -> None:
        self.points, self.process = points.detach().flatten(1), process
        self.mean = self.points.to(torch.float64).mean(0).to(points.dtype)

    def denoise(self, x: Tensor, t: Time, condition: Tensor | None = None) -> Tensor:
        alpha, sigma = (c.to(x.device).expand(len(x))[:, None] for c in self.process.levels(t))
        flat = x.flatten(1).to(self.points.dtype)
        # x_i - m in the product would only add the same number to all of a query's exponents
        query = (flat - alpha.to(flat) * self.mean) * (alpha / sigma**2).to(flat)
        parts = [torch.softmax(q @ self.points.T, 1) @ self.points for q in torch.split(query, max(1, SCORES // len(self.points)))]
        return torch.cat(parts).to(x.dtype).reshape(x.shape)


class ExpandedGaussian(Denoiser):
    """A Gaussian's denoiser to first or second order in `alpha^2 Sigma / sigma^2`.

    Raises:
        ArgumentError: another order.
    """

    def __init__(self, law: Gaussian, process: ScalarProcess, order: int) -> None:
        if order not in (1, 2):
            raise ArgumentError("order", order, "1 or 2")
        self.law, self.process, self.order = law, process, order

    def denoise(self, x: Tensor, t: Time, condition: Tensor | None = None) -> Tensor:
        alpha, sigma = (c.to(x.device)[..., None] for c in self.process.levels(t))

        def gain(v: Tensor) -> Tensor:
            share = alpha * v / sigma**2
            return share if self.order == 1 else share - alpha * share**2

        away = x.flatten(1).to(self.law.dtype) - alpha.to(self.law.dtype) * self.law.mean
        return (self.law.mean + self.law.covariance.apply(gain, away)).to(x.dtype).reshape(x.shape)


def ladder(points: Float[Tensor, "N *event"], law: Gaussian, process: ScalarProcess) -> dict[str, Denoiser]:
    """All rungs by name, from the nearest point to the first order.

    Arguments:
        points: float32 or float64 `(N, *event)`.
        law: the Gaussian with their mean and covariance.
        process: what made `x_t` of them.
    """
    law_of_points = Empirical(points)
    return {
        "nearest": NearestPoint(law_of_points, process),
        "points": law_of_points.denoiser(process),
        "tilted": TiltedPoints(points, process),
        "gaussian": law.denoiser(process),
        "second": ExpandedGaussian(law, process, 2),
        "first": ExpandedGaussian(law, process, 1),
    }
