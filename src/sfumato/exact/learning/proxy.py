r"""The noise of the training target: the proxy score and its covariance, from the exact posterior of a law.

A score is learned from the proxy `s~ = (alpha x_0 - x)/sigma^2`, which equals the score `s = grad log p_t` only on average. It scatters by

    C(x, t) = Cov[s~ | x_t = x] = (alpha^2/sigma^4) Cov[x_0 | x_t = x] = I/sigma^2 + Hess log p_t(x),

and with the posterior mean `D`, for every law, `Cov[x_0 | x] = (sigma^2/alpha) dD/dx`. For a set of points with posterior weights `w` it is
`sum_i w_i (x_i - D)(x_i - D)^T`. On average over `x_t` the target's power is `d/sigma^2 = E|s|^2 + E tr C`.
Source: Vastola 2025 (arXiv 2504.12532), section 3.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.exact.laws.empirical import Empirical
from sfumato.exact.laws.law import Law
from sfumato.exact.laws.softmax import BLOCK, SCORES
from sfumato.noise import ScalarProcess, Time


def posterior_covariance(law: Law, x: Float[Tensor, "batch *event"], process: ScalarProcess, t: Time) -> Float[Tensor, "batch dim dim"]:
    """`Cov[x_0 | x_t = x]`, dense and float64, from the derivative of the posterior mean: `dim` backward passes.

    Arguments:
        law: any law whose posterior mean can be differentiated.
        x: `(batch, *event)`.
        process, t: what made `x_t`, at a time with both signal and noise.

    Raises:
        ArgumentError: no signal or no noise is left at `t`.
    """
    alpha, sigma = levels(process, t)
    return _jacobian(law, x, process, t) * (sigma**2 / alpha)


def posterior_variance(law: Law, x: Float[Tensor, "batch *event"], process: ScalarProcess, t: Time) -> Float[Tensor, " batch"]:
    """`tr Cov[x_0 | x_t = x]`, float64; for a set of points in two matrix products, a block of them at a time.

    Raises:
        ArgumentError: no signal or no noise is left at `t`.
    """
    alpha, sigma = levels(process, t)
    if not isinstance(law, Empirical):
        return torch.diagonal(posterior_covariance(law, x, process, t), dim1=1, dim2=2).sum(1)
    spread = alpha**2 * law.std**2 + sigma**2
    kept = law.scale * sigma**2 / spread
    points, centre = law.cloud.points, law.cloud.mean
    flat = x.detach().reshape(len(x), -1).to(torch.float64)
    parts = []
    for some in torch.split(flat, max(1, SCORES // len(points))):
        shares = torch.softmax(log_shares(law, some, alpha, spread), 1)
        mean, square = torch.zeros_like(some), torch.zeros_like(shares[:, 0])
        for first in range(0, len(points), BLOCK):
            block, weight = points[first : first + BLOCK].to(torch.float64) - centre, shares[:, first : first + BLOCK]
            square += weight @ block.square().sum(1)
            mean += weight @ block
        # below 0 only by rounding, where the posterior is one point
        parts.append((square - mean.square().sum(1)).clamp(min=0))
    return kept**2 * torch.cat(parts) + law.dim * law.std**2 * sigma**2 / spread


def proxy_covariance(law: Law, x: Float[Tensor, "batch *event"], process: ScalarProcess, t: Time) -> Float[Tensor, "batch dim dim"]:
    """`C(x, t)`, the covariance of the proxy score; see `posterior_covariance`."""
    alpha, sigma = levels(process, t)
    return posterior_covariance(law, x, process, t) * (alpha**2 / sigma**4)


def proxy_variance(law: Law, x: Float[Tensor, "batch *event"], process: ScalarProcess, t: Time) -> Float[Tensor, " batch"]:
    """`tr C(x, t)`; see `posterior_variance`."""
    alpha, sigma = levels(process, t)
    return posterior_variance(law, x, process, t) * (alpha**2 / sigma**4)


def levels(process: ScalarProcess, t: Time) -> tuple[float, float]:
    """`alpha` and `sigma` at a single time.

    Raises:
        ArgumentError: one of them is 0.
    """
    alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
    if alpha == 0 or sigma == 0:
        raise ArgumentError("t", t, "a time with both signal and noise")
    return alpha, sigma


def _jacobian(law: Law, x: Tensor, process: ScalarProcess, t: Time) -> Tensor:
    """`dD/dx`, `(batch, dim, dim)`."""
    with torch.enable_grad():
        at = x.detach().to(torch.float64).requires_grad_()
        mean = law.posterior_mean(at, process, t).flatten(1)
        rows = [torch.autograd.grad(mean[:, i].sum(), at, retain_graph=True)[0].flatten(1) for i in range(mean.shape[1])]
    return torch.stack(rows, 1)


def log_shares(law: Empirical, x: Tensor, alpha: float, spread: float) -> Float[Tensor, "batch N"]:
    """`log w_i - |x - a x_i|^2/(2 spread)` up to a constant per query, float64."""
    points, a = law.cloud.points, alpha * law.scale
    centre = law.cloud.mean
    blocks = (points[i : i + BLOCK].to(torch.float64) - centre for i in range(0, len(points), BLOCK))
    scores = torch.cat([((x - a * centre) @ b.T) * a - a**2 * b.square().sum(1) / 2 for b in blocks], 1)
    return scores / spread + (0.0 if law.cloud.weights is None else torch.log(law.cloud.weights))
