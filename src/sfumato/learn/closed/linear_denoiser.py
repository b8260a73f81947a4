r"""Denoisers that are linear in fixed features, fitted by ridge regression, and the law of their weights over training sets.

    m(x, t) = W phi(x, t),      H = E[l phi phi^T],      A = E[l y phi^T],      W = A (H + rho I)^{-1},

with means over `P` triples `(y, t, x)` of a `Regression` (`y` is its target). Over independent training sets each row of `W` scatters by
the sandwich law, to first order in `size / P`,

    Cov(W_i) = (1/P) (H + rho)^{-1} B_i (H + rho)^{-1},        B_i = Cov[l phi (y_i - w*_i.phi)],

with population means and the population weights `w*`. For the proxy target `B` is the sum of the clean target's (the misfit) and of
`E[l^2 Cov(x_0|x,t)_ii phi phi^T]`, the target noise as the features see it. The weights scatter, so the denoiser is a random function, with

    V(z, z') = phi(z)^T Cov(W) phi(z')     for the denoiser, and `alpha alpha' / (sigma sigma')^2` times it for the score.

Source: Vastola 2025 (arXiv 2504.12532), section 5 (linear models); White 1980 (doi 10.2307/1912934) for the sandwich.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError, ShapeError
from sfumato.learn.closed.features import Features
from sfumato.learn.closed.triples import Regression, Triples
from sfumato.noise import ScalarProcess, Time, as_time
from sfumato.seeds import noise

_BLOCK = 2**24


class LinearDenoiser(Denoiser):
    """`W phi(x, t)`.

    Arguments:
        features: of events with `dim` numbers.
        weights: `W^T`, `(size, dim)`, float64.
        process: the process whose noisy data `x` is.
    """

    def __init__(self, features: Features, weights: Float[Tensor, "size dim"], process: ScalarProcess) -> None:
        if weights.shape != (features.size, features.dim):
            raise ShapeError("weights", tuple(weights.shape), f"({features.size}, {features.dim})")
        self.features, self.weights, self.process = features, weights, process

    def denoise(self, x: Tensor, t: Time, condition: Tensor | None = None) -> Tensor:
        if condition is not None:
            raise ArgumentError("condition", tuple(condition.shape), "none", "A linear denoiser has no condition.")
        return (self.features(x.flatten(1), as_time(t).expand(len(x))) @ self.weights).to(x.dtype).reshape(x.shape)


def fit_linear(features: Features, problem: Regression, count: int, *, ridge: float = 0.1, seed: int = 0) -> LinearDenoiser:
    """The ridge solution on `count` triples drawn by `seed`.

    Raises:
        ArgumentError: a ridge that is not positive, no triples.
        ShapeError: features of events of another size.
    """
    scatter, products = _moments(features, problem, problem.draw(count, seed))
    return LinearDenoiser(features, _solve(scatter, ridge, products), problem.process)


@dataclass(frozen=True, eq=False)
class LinearSpread:
    """The sandwich law of linear denoisers that are each fitted to `count` triples of their own.

    Arguments:
        mean: the population solution, which is their average to first order.
        factors: `L_i` with `Cov(W_i) = L_i L_i^T`, one output each, `(dim, size, size)`.
        count: triples a model is fitted to.
    """

    mean: LinearDenoiser
    factors: Float[Tensor, "dim size size"]
    count: int

    def variance(self, x: Float[Tensor, "n *event"], t: Time) -> Float[Tensor, "n dim"]:
        """`V((x, t), (x, t))` of the denoiser's every output."""
        phi = self._features(x, t)
        return torch.stack([(phi @ factor).square().sum(1) for factor in self.factors], 1)

    def kernel(self, x: Float[Tensor, "n *event"], t: Time, other: Float[Tensor, "m *event"], other_t: Time) -> Float[Tensor, "dim n m"]:
        """`V((x, t), (x', t'))` of the denoiser, one matrix per output (outputs are treated one by one)."""
        phi, psi = self._features(x, t), self._features(other, other_t)
        return torch.stack([phi @ factor @ (psi @ factor).T for factor in self.factors])

    def draw(self, models: int, seed: int = 0) -> list[LinearDenoiser]:
        """Whole random denoisers with this mean and covariance: Gaussian weights, outputs independent of each other."""
        dim, size, _ = self.factors.shape
        white = noise(seed, models, (dim, size), dtype=torch.float64).draw(0)
        moved = torch.einsum("dfg,mdg->mfd", self.factors, white)
        return [LinearDenoiser(self.mean.features, self.mean.weights + step, self.mean.process) for step in moved]

    def _features(self, x: Tensor, t: Time) -> Tensor:
        return self.mean.features(x.flatten(1), as_time(t).expand(len(x)))


def sandwich(
    features: Features, problem: Regression, count: int, *, ridge: float = 0.1, population: int = 20_000, seed: int = 0
) -> LinearSpread:
    """The law of `fit_linear(features, problem, count, ridge=ridge)` over its seeds.

    Arguments:
        features, problem, count, ridge: as in `fit_linear`.
        population: triples that stand for the population.
        seed: of the population; take one that no model was fitted with.

    Raises:
        ArgumentError, ShapeError: as `fit_linear`.
    """
    triples, block = problem.draw(population, seed), _rows(features)
    scatter, products = _moments(features, problem, triples)
    weights = _solve(scatter, ridge, products)
    total, square = torch.zeros_like(weights), weights.new_zeros(features.dim, features.size, features.size)
    for first in range(0, population, block):
        part = slice(first, first + block)
        phi = features(triples.noisy[part], triples.t[part])
        pull = triples.weight[part, None] * (triples.target[part] - phi @ weights)
        total += phi.T @ pull
        for i in range(features.dim):
            pulled = phi * pull[:, i, None]
            square[i].addmm_(pulled.T, pulled)
    mean = total.T / population
    middle = square / population - mean[:, :, None] * mean[:, None]
    values, vectors = torch.linalg.eigh(middle)
    root = vectors * values.clamp(min=0).sqrt()[:, None]
    factors = torch.stack([_solve(scatter, ridge, r) for r in root]) / math.sqrt(count)
    return LinearSpread(LinearDenoiser(features, weights, problem.process), factors, count)


def _rows(features: Features) -> int:
    return max(1, _BLOCK // features.size)


def _moments(features: Features, problem: Regression, triples: Triples) -> tuple[Tensor, Tensor]:
    """`H` `(size, size)` and `A^T` `(size, dim)`, means over the triples."""
    if problem.law.dim != features.dim:
        raise ShapeError("features", f"features of {features.dim} numbers", f"features of the law's {problem.law.dim}")
    count, block = len(triples.t), _rows(features)
    scatter = torch.zeros(features.size, features.size, dtype=torch.float64)
    products = torch.zeros(features.size, features.dim, dtype=torch.float64)
    for first in range(0, count, block):
        part = slice(first, first + block)
        phi = features(triples.noisy[part], triples.t[part])
        weighted = triples.weight[part, None] * phi
        scatter.addmm_(phi.T, weighted)
        products.addmm_(weighted.T, triples.target[part])
    return scatter / count, products / count


def _solve(scatter: Tensor, ridge: float, right: Tensor) -> Tensor:
    """`(H + rho I)^{-1} right`."""
    if not 0 < ridge < math.inf:
        raise ArgumentError("ridge", ridge, "a positive number")
    return torch.cholesky_solve(right, torch.linalg.cholesky(scatter + ridge * torch.eye(len(scatter), dtype=scatter.dtype)))
