r"""The reverse kernel of a mixture, exactly: `q(x_s | x_t) = sum_k r_k(x_t) N(m_k(x_t), C_k)` for `s < t`.

With `x_t | x_s ~ N(phi x_s, q I)`, and component `k` at `s` having the mean `a_k` and the covariance `P_k = alpha_s^2 C + sigma_s^2`,

    C_k = (P_k^-1 + phi^2 / q)^-1,    m_k = a_k + phi P_k (phi^2 P_k + q)^-1 (x_t - phi a_k),    r_k = p(k | x_t).

One Gaussian is not enough where components are far apart; the nearest one in Kullback-Leibler divergence has the kernel's mean and
covariance, and misses it by the difference of the two entropies. Source: Li et al. 2023 (arXiv 2309.14068), section 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact.laws.law import LOG_TWO_PI
from sfumato.exact.laws.mixture import GaussianMixture
from sfumato.noise import ScalarProcess


@dataclass(frozen=True, eq=False)
class ReverseKernel:
    """A mixture of Gaussians per state, flat and in the law's dtype.

    Arguments:
        shares: `r_k`, `(batch, K)`.
        means: `m_k`, `(batch, K, dim)`.
        covariances: `C_k`, `(K, dim, dim)`, the same for all states.
    """

    shares: Float[Tensor, "batch K"]
    means: Float[Tensor, "batch K dim"]
    covariances: Float[Tensor, "K dim dim"]

    def log_prob(self, x: Float[Tensor, "*n batch dim"]) -> Float[Tensor, "*n batch"]:
        """`log q(x_s | x_t)`, each `x_s` under the kernel of the state with its number."""
        away = x[..., None, :] - self.means
        factor = torch.linalg.cholesky(self.covariances)
        inverse = torch.linalg.inv(factor)  # of K small matrices, for every state: a solve per state would cost far more
        white = torch.einsum("kde,...ke->...kd", inverse, away)
        logdet = factor.diagonal(dim1=1, dim2=2).log().sum(1)
        each = -0.5 * (white.square().sum(-1) + x.shape[-1] * LOG_TWO_PI) - logdet
        return torch.logsumexp(self.shares.log() + each, -1)

    def sample(self, generator: torch.Generator) -> Float[Tensor, "batch dim"]:
        """One draw per state."""
        chosen = torch.multinomial(self.shares, 1, generator=generator)[:, 0]
        means = self.means[torch.arange(len(chosen)), chosen]
        noise = torch.randn(means.shape, generator=generator, dtype=means.dtype)
        return means + (torch.linalg.cholesky(self.covariances)[chosen] @ noise[..., None])[..., 0]

    def moments(self) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim dim"]]:
        """Mean and covariance of the kernel of each state."""
        mean = torch.einsum("bk,bkd->bd", self.shares, self.means)
        away = self.means - mean[:, None]
        spread = torch.einsum("bk,kde->bde", self.shares, self.covariances)
        return mean, spread + torch.einsum("bk,bkd,bke->bde", self.shares, away, away)


def reverse_kernel(law: GaussianMixture, process: ScalarProcess, x: Float[Tensor, "batch *event"], t: float, s: float) -> ReverseKernel:
    """The kernel from the states `x` at `t` down to `s`.

    Raises:
        ArgumentError: `s` that is not below `t`; a law without a density at `s` or `t`.
        ShapeError: states of another event shape.
    """
    if not 0 <= s < t <= 1:
        raise ArgumentError("t, s", (t, s), "0 <= s < t <= 1")
    if x.shape[1:] != law.event_shape:
        raise ShapeError("x", tuple(x.shape), f"states of shape {law.event_shape}")
    step = process.transition(s, t)
    phi, q = float(step.phi), float(step.covariance)
    alpha, sigma = (float(v) for v in process.levels(s))
    shares = _at(law, process, t).responsibilities(x)
    flat, centres = x.flatten(1).to(law.dtype), alpha * law.means
    before = torch.stack([c.map(lambda v: alpha**2 * v + sigma**2).dense() for c in law.covariances])
    eye = torch.eye(law.dim, dtype=law.dtype)
    gain = phi * torch.linalg.solve(phi**2 * before + q * eye, before)  # both commute
    means = centres + torch.einsum("kde,bke->bkd", gain, flat[:, None] - phi * centres)
    covariances = before - phi * gain @ before
    return ReverseKernel(shares, means, (covariances + covariances.mT) / 2)


def _at(law: GaussianMixture, process: ScalarProcess, t: float) -> GaussianMixture:
    out = law.through(process, t)
    if not isinstance(out, GaussianMixture):
        raise ArgumentError("law", type(law).__name__, "a mixture of Gaussians")
    return out


def gaussian_gap(kernel: ReverseKernel, x: Float[Tensor, "n batch dim"]) -> Float[Tensor, "batch"]:
    """`KL(q(. | x_t) || its nearest Gaussian)` per state, estimated on draws `x` of each kernel: the mean of the log-ratio of densities."""
    mean, covariance = kernel.moments()
    factor = torch.linalg.cholesky(covariance)
    white = torch.linalg.solve_triangular(factor, (x - mean)[..., None], upper=False)[..., 0]
    logdet = factor.diagonal(dim1=1, dim2=2).log().sum(1)
    normal = -0.5 * (white.square().sum(-1) + x.shape[-1] * LOG_TWO_PI) - logdet
    return (kernel.log_prob(x) - normal).mean(0)


def gaussian_gap_1d(kernel: ReverseKernel, points: int = 1001, widths: int | float = 12) -> Float[Tensor, "batch"]:
    """The same in one dimension by quadrature: entropy of the Gaussian less that of the mixture.

    Raises:
        ArgumentError: more than one dimension, or too few points to resolve a component.
    """
    if kernel.means.shape[2] != 1 or points < 101:
        raise ArgumentError("kernel, points", (tuple(kernel.means.shape), points), "one dimension, and at least 101 points")
    std = kernel.covariances[:, 0, 0].sqrt()
    low = (kernel.means[..., 0] - widths * std).min(1).values
    high = (kernel.means[..., 0] + widths * std).max(1).values
    if bool(((high - low) / (points - 1) > std.min()).any()):
        raise ArgumentError("points", points, f"at least {int((high - low).max() / std.min()) + 2}, one per narrowest width")
    grid = low + (high - low) * torch.linspace(0, 1, points, dtype=low.dtype)[:, None]
    log = kernel.log_prob(grid[..., None])
    entropy = -torch.trapezoid(log.exp() * log, grid, dim=0)
    _, covariance = kernel.moments()
    return 0.5 * torch.log(2 * math.pi * math.e * covariance[:, 0, 0]) - entropy
