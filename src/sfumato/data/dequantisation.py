r"""Discrete levels as densities: noise is added to a level, and the density of the sum bounds the level's probability.

Levels `w` apart, seen as `x = alpha (level + noise)`, have for every law `q(x | level)` that stays within the level's own cell

    log P(level) >= E_q [log p(x) - log q(x | level)],

and `log mean_k p(x_k)/q(x_k | level)` over several draws is the tighter, and rising, bound of importance weighting. Noise that leaves the
cell counts other levels' density as the level's own: the inequality is lost, unless a decoder says how much of `p(x)` is this level's.

| noise | `q(x given level)` |
|---|---|
| uniform | `1/w` on the cell; `alpha = 1` |
| truncated normal | `alpha level + sigma u`, `u ~ N(0, 1)` given `abs(u) <= tau = alpha w / (2 sigma)`: the model's noise at that time |
| Gaussian, with the decoder of `N(x; alpha level', sigma^2)` over all levels | `alpha level + sigma u`, not truncated |

Sources: Theis et al. 2016 (arXiv 1511.01844), section 3.1; Burda et al. 2016 (arXiv 1509.00519); Zheng et al. 2023 (arXiv 2305.03935),
section 4.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError, ShapeError
from sfumato.seeds import Seed, noise


@dataclass(frozen=True)
class Dequantised:
    """Levels with noise added.

    Arguments:
        values: `(batch, *event)`, in the dtype of the levels.
        log_density: `log q(values | levels)`, less the decoder's `log P(levels | values)` where there is one; `(batch,)`, float64.
    """

    values: Float[Tensor, " batch *event"]
    log_density: Float[Tensor, " batch"]


class Dequantisation(ABC):
    """A law of noise for levels that stand equally far apart."""

    @abstractmethod
    def draw(self, levels: Float[Tensor, " batch *event"], seed: Seed) -> Dequantised:
        """One draw for every sample."""


@dataclass(frozen=True)
class UniformDequantisation(Dequantisation):
    """`level + width (u - 1/2)`, uniform over the level's cell.

    Arguments:
        width: how far apart levels stand, e.g. 2/255 for bytes in [-1, 1].
    """

    width: float = 1.0

    def __post_init__(self) -> None:
        _check(self.width)

    def draw(self, levels: Float[Tensor, " batch *event"], seed: Seed) -> Dequantised:
        shift = self.width * (_uniform(levels, seed) - 0.5)
        return Dequantised(levels + shift.to(levels.dtype), _per_sample(torch.full_like(shift, -math.log(self.width))))


@dataclass(frozen=True)
class TruncatedNormalDequantisation(Dequantisation):
    """`alpha level + sigma u` with `u` standard normal given that the sum stays in the level's cell.

    Arguments:
        width: how far apart levels stand before they are scaled by `alpha`.
        alpha, sigma: of the process where its likelihood starts, so that the model meets what it was trained on.
    """

    width: float
    alpha: float
    sigma: float

    def __post_init__(self) -> None:
        _check(self.width, self.alpha, self.sigma)

    @property
    def tau(self) -> float:
        """Where `u` is cut off."""
        return self.alpha * self.width / (2 * self.sigma)

    @property
    def entropy(self) -> float:
        """`-E log q` per number in nats: `(1 + log 2 pi sigma^2)/2 + log Z - tau exp(-tau^2/2)/(sqrt(2 pi) Z)`, `Z = erf(tau/sqrt 2)`."""
        mass = math.erf(self.tau / math.sqrt(2))
        cut = self.tau * math.exp(-(self.tau**2) / 2) / (math.sqrt(2 * math.pi) * mass)
        return 0.5 * (1 + math.log(2 * math.pi * self.sigma**2)) + math.log(mass) - cut

    def draw(self, levels: Float[Tensor, " batch *event"], seed: Seed) -> Dequantised:
        mass = math.erf(self.tau / math.sqrt(2))
        share = _uniform(levels, seed)
        # both halves from the lower tail, where the normal's quantiles keep their digits
        lower = torch.special.ndtri(0.5 * (1 - mass) + mass * torch.minimum(share, 1 - share))
        u = torch.where(share < 0.5, lower, -lower).clamp(-self.tau, self.tau)
        values = self.alpha * levels + (self.sigma * u).to(levels.dtype)
        return Dequantised(values, _per_sample(_normal(u, self.sigma) - math.log(mass)))


@dataclass(frozen=True)
class GaussianDequantisation(Dequantisation):
    """`alpha level + sigma u`, not truncated, with the decoder `P(level | x)` of equally likely levels under the same noise.

    Arguments:
        levels: all levels there are, in order or not.
        alpha, sigma: of the process where its likelihood starts.
        decoder: without it the noise leaves the cell uncounted, and the result is no bound.
    """

    levels: tuple[float, ...]
    alpha: float
    sigma: float
    decoder: bool = True

    def __post_init__(self) -> None:
        _check(self.alpha, self.sigma)
        if len(self.levels) < 2:
            raise ArgumentError("levels", list(self.levels), "at least two levels")

    def draw(self, levels: Float[Tensor, " batch *event"], seed: Seed) -> Dequantised:
        u = noise(seed, len(levels), levels.shape[1:], dtype=torch.float64, device=levels.device).draw(0)
        precise = self.alpha * levels.to(torch.float64) + self.sigma * u
        density = _normal(u, self.sigma)
        if self.decoder:
            grid = self.alpha * torch.tensor(self.levels, dtype=torch.float64, device=levels.device)
            everyone = torch.stack([_normal((precise - level) / self.sigma, self.sigma) for level in grid])
            # q less log P(level | x) = log q - (log q - log sum over levels)
            density = torch.logsumexp(everyone, 0)
        return Dequantised(precise.to(levels.dtype), _per_sample(density))


def importance_bound(log_prob: Float[Tensor, "draws batch"], log_density: Float[Tensor, "draws batch"]) -> Float[Tensor, " batch"]:
    """`log mean_k p(x_k) / q(x_k | level)`: at most `log P(level)` on average, and closer to it with every draw.

    Raises:
        ShapeError: no draws, or not one density per probability.
    """
    if log_prob.shape != log_density.shape or not len(log_prob):
        raise ShapeError("log_density", tuple(log_density.shape), f"the shape of log_prob, {tuple(log_prob.shape)}, with at least one draw")
    return torch.logsumexp(log_prob - log_density, 0) - math.log(len(log_prob))


def _check(*sizes: float) -> None:
    if not all(0 < v < math.inf for v in sizes):
        raise ArgumentError("width, alpha, sigma", sizes, "positive numbers")


def _uniform(levels: Tensor, seed: Seed) -> Tensor:
    return torch.special.ndtr(noise(seed, len(levels), levels.shape[1:], dtype=torch.float64, device=levels.device).draw(0))


def _normal(u: Tensor, sigma: float) -> Tensor:
    return -0.5 * u.square() - math.log(sigma) - 0.5 * math.log(2 * math.pi)


def _per_sample(log_density: Tensor) -> Tensor:
    return log_density.flatten(1).sum(1)
