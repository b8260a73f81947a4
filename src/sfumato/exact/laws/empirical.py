r"""A training set as a law: `p = sum_i w_i N(scale x_i, std^2 I)`, with `std = 0` for the set itself.

At noise `(alpha, sigma)` and with `a = alpha scale`, `s^2 = alpha^2 std^2 + sigma^2`, everything follows from the soft nearest point
`X = sum_i p_i x_i`, `p_i ~ w_i exp(-|x - a x_i|^2 / (2 s^2))` of `sfumato.exact.laws.softmax`:

    E[x_0 | x] = scale (1 - alpha g) X + g x,    g = alpha std^2 / s^2,        score = (a X - x) / s^2     (alpha = 1, sigma = 0).

Points are never copied or scaled: noise only changes `scale` and `std`. Log-densities are float64 whatever the points are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError, DataError
from sfumato.exact.laws.conditioning import noise_covariance, observation
from sfumato.exact.laws.law import LOG_TWO_PI, Law, pick, probabilities
from sfumato.exact.laws.mixture import GaussianMixture
from sfumato.exact.laws.softmax import BLOCK, PointSet, SoftNearest
from sfumato.exact.spectral.covariance import SpectralCovariance
from sfumato.seeds import Noise

FAR = 1e15
"""Beyond this noise-to-signal ratio the points' weights are the prior's to the last digit of float64."""


class Empirical(Law):
    """The points of a data set, each as likely as its weight.

    The posterior mean where `sigma = 0` is the limit: the point nearest to `x / alpha`, and the weighted mean of those that are exactly
    equally near. The law itself has no density; `through` a noisy time it has one.

    Arguments:
        points: `(N, *event)`, float32 or float64; kept, not copied.
        weights: N numbers of at least 0, scaled to sum to 1; default: equal. Points of weight 0 are dropped.

    Raises:
        DataError: no points, or values that are not finite.
        ArgumentError: points of another dtype, or weights that are none.

    Example:
        >>> import torch
        >>> from sfumato.exact import Empirical
        >>> from sfumato.noise import EDM
        >>> law = Empirical(torch.tensor([[0.0], [1.0], [4.0]]))
        >>> x = torch.tensor([[1.2]])
        >>> print([round(law.posterior_mean(x, EDM(), k / 80).item(), 3) for k in (0.1, 1.0, 80.0)])  # the nearest point ... the mean
        [1.0, 0.713, 1.666]
    """

    def __init__(self, points: Float[Tensor, " N *event"], weights: Tensor | Sequence[float] | None = None) -> None:
        if points.ndim < 2 or points.numel() == 0:
            raise DataError("points", tuple(points.shape), "at least one point, (N, *event)")
        if points.dtype not in (torch.float32, torch.float64):
            raise ArgumentError("points", points.dtype, "float32 or float64 points")
        if not bool(torch.isfinite(points).all()):
            raise DataError("points", f"{int((~torch.isfinite(points)).sum())} values that are NaN or infinite", "finite points")
        flat = points.detach().reshape(len(points), -1)
        shares = None if weights is None else probabilities(weights, len(flat), flat.device)
        if shares is not None and bool((shares == 0).any()):
            flat, shares = flat[shares > 0], shares[shares > 0]
        self._setup(PointSet(flat, shares), tuple(points.shape[1:]), 1.0, 0.0)

    def _setup(self, cloud: PointSet, event_shape: tuple[int, ...], scale: float, std: float) -> None:
        self.cloud, self.event_shape, self.scale, self.std = cloud, event_shape, scale, std
        self.mean = (scale * cloud.mean).to(cloud.points.dtype)

    def __len__(self) -> int:
        return len(self.cloud.points)

    @property
    def weights(self) -> Float[Tensor, " N"]:
        """The points' probabilities, float64."""
        return probabilities(self.cloud.weights, len(self), self.device)

    def given(self, A: Tensor, y: Tensor, noise: float | Tensor) -> Law:
        A, y = observation(A, y, self.dim, self.device)
        if self.std:
            each = SpectralCovariance.isotropic(self.dim, self.std**2, dtype=self.dtype, device=self.device)
            return GaussianMixture(self.weights, self.scale * self.cloud.points, [each] * len(self), self.event_shape).given(A, y, noise)
        factor, info = torch.linalg.cholesky_ex(noise_covariance(noise, len(y), self.device))
        if int(info):
            raise ArgumentError(
                "noise", "noise without variance in some direction", "a regular covariance", "Single points have no spread."
            )
        pieces = torch.split(self.cloud.points, BLOCK)
        away = torch.cat([y - self.scale * (p.to(torch.float64) @ A.T) for p in pieces])
        evidence = -0.5 * torch.linalg.solve_triangular(factor, away.T, upper=False).square().sum(0)
        weights = torch.softmax(torch.log(self.weights) + evidence, 0)
        kept = weights > 0
        law = Empirical.__new__(Empirical)
        law._setup(PointSet(self.cloud.points[kept], weights[kept] / weights[kept].sum()), self.event_shape, self.scale, 0.0)
        return law

    def to(self, dtype: torch.dtype, device: torch.device | str | None = None) -> Empirical:
        points = self.cloud.points.to(dtype=dtype, device=device or self.device)
        if points is self.cloud.points:
            return self
        weights = None if self.cloud.weights is None else self.cloud.weights.to(points.device)
        law = Empirical.__new__(Empirical)
        law._setup(PointSet(points, weights), self.event_shape, self.scale, self.std)
        return law

    def _noised(self, alpha: float, sigma: float) -> Empirical:
        law = Empirical.__new__(Empirical)
        law._setup(self.cloud, self.event_shape, alpha * self.scale, (alpha**2 * self.std**2 + sigma**2) ** 0.5)
        return law

    def _flat(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        # float32 queries are exact in float64, and their quotients by alpha and differences from points are taken there
        return super()._flat(x, torch.float64)

    def _sample(self, draws: Noise) -> Tensor:
        out = self.scale * self.cloud.points[pick(self.weights, draws)]
        return out + self.std * draws.draw(0).reshape(out.shape) if self.std else out

    def _log_prob(self, x: Tensor) -> Tensor:
        _, mass = self._believe(x, *self._density())
        return mass - 0.5 * self.dim * (LOG_TWO_PI + torch.log(x.new_tensor(self.std**2)))

    def _score(self, x: Tensor) -> Tensor:
        point, _ = self._believe(x, *self._density())
        return (self.scale * point - x) / self.std**2

    def _posterior_mean(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        variance = alpha**2 * self.std**2 + sigma**2
        point, _ = self._believe(x, (alpha * self.scale).expand(len(x)), variance.sqrt().expand(len(x)))
        # a set of points without spread keeps no part of x, also where sigma = 0
        gain = (alpha * self.std**2 / variance if self.std else torch.zeros_like(variance))[..., None]
        return self.scale * (1 - alpha[..., None] * gain) * point + gain * x

    def _density(self) -> tuple[Tensor, Tensor]:
        if not self.std:
            raise ArgumentError("law", "a set of single points", "a law that has a density", "Take it through a noisy time first.")
        one = torch.ones((), dtype=torch.float64, device=self.device)
        return self.scale * one, self.std * one

    def _believe(self, x: Tensor, a: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """The soft nearest point and `log sum_i w_i exp(-|x - a x_i|^2 / (2 s^2))`, for flat float64 `x` and `a`, `s`."""
        a, s = a.expand(len(x)), s.expand(len(x))
        far = a * FAR < s
        safe = torch.where(far, 1.0, a)
        point, mass = SoftNearest.apply(x / safe[:, None], torch.where(far, 1.0, s / safe), self.cloud)  # type: ignore[no-untyped-call]
        point = torch.where(far[:, None], self.cloud.mean, point)
        return point, torch.where(far, -x.square().sum(1) / (2 * s**2), mass)
