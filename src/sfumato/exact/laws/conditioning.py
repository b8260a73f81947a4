r"""Conditioning a Gaussian on a linear observation `y = A x + e`, `e ~ N(0, R)`.

With `S = A C A^T + R`: mean `m + C A^T S^{-1} (y - A m)`, covariance `C - C A^T S^{-1} A C`, evidence `N(y; A m, S)`. Outside the span of
`[U, A^T]` nothing is learned, so the posterior of `U diag(l) U^T + rest` keeps its `rest` and has rank `rank + m` at most: no `dim x dim`
matrix is formed unless the covariance has full rank.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact.spectral.basis import MatrixBasis
from sfumato.exact.spectral.covariance import SpectralCovariance


def noise_covariance(noise: float | Tensor, m: int, device: torch.device) -> Tensor:
    """The covariance `(m, m)`, float64, of observation noise given as a standard deviation or as a covariance.

    Raises:
        ShapeError, ArgumentError: neither of the two.
    """
    given = torch.as_tensor(noise, dtype=torch.float64, device=device)
    if given.ndim == 0:
        if not 0 <= float(given) < math.inf:
            raise ArgumentError("noise", float(given), "a standard deviation of at least 0")
        return given**2 * torch.eye(m, dtype=torch.float64, device=device)
    if given.shape != (m, m):
        raise ShapeError("noise", tuple(given.shape), f"a standard deviation, or a covariance ({m}, {m})")
    return SpectralCovariance.from_dense(given).dense()


def observation(A: Tensor, y: Tensor, dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """`A` and `y` in float64, checked.

    Raises:
        ShapeError: not `(m, dim)` and `(m,)`.
        ArgumentError: not finite.
    """
    if A.ndim != 2 or A.shape[1] != dim or y.shape != (A.shape[0],):
        raise ShapeError("A, y", (tuple(A.shape), tuple(y.shape)), f"an operator (m, {dim}) and an observation (m,)")
    out = A.detach().to(device, torch.float64), y.detach().to(device, torch.float64)
    if not all(bool(torch.isfinite(v).all()) for v in out):
        raise ArgumentError("A, y", "NaN or infinite entries", "a finite operator and observation")
    return out


def condition(
    mean: Tensor,
    covariance: SpectralCovariance,
    A: Tensor,
    y: Tensor,
    noise: Tensor,
) -> tuple[Tensor, SpectralCovariance, Tensor]:
    """The posterior mean `(dim,)` and covariance, and the log evidence `log p(y)`, all computed in float64.

    Arguments:
        mean, covariance: the prior's.
        A, y, noise: `(m, dim)`, `(m,)` and the noise's covariance `(m, m)`, float64.

    Raises:
        ArgumentError: `S` is singular: some direction of `y` has neither noise nor variance.
    """
    prior = covariance.to(torch.float64)
    eye = torch.eye(prior.dim, dtype=torch.float64, device=prior.device)
    thin = prior.rank + A.shape[0] < prior.dim
    span = torch.linalg.qr(torch.cat([prior.basis.columns(), A.T], 1)).Q if thin else eye
    root = span.T @ prior.sqrt_matmul(span.T).T
    seen = A @ span @ root
    values, vectors = torch.linalg.eigh(seen @ seen.T + noise)
    if float(values[0]) <= 4 * len(values) * torch.finfo(torch.float64).eps * float(values[-1]):
        raise ArgumentError("noise", "an observation with a direction that has neither noise nor variance", "a regular A C A^T + noise")
    residual = vectors.T @ (y - A @ mean.to(torch.float64))
    whitened = vectors.T @ seen / values.sqrt()[:, None]
    shift = span @ (root @ (whitened.T @ (residual / values.sqrt())))
    inner = root @ (torch.eye(len(root), dtype=torch.float64, device=prior.device) - whitened.T @ whitened) @ root.T
    block = SpectralCovariance.from_dense((inner + inner.T) / 2)
    posterior = SpectralCovariance(MatrixBasis(span @ block.basis.columns(), check=False), block.eigenvalues, prior.rest)
    evidence = -0.5 * ((residual**2 / values).sum() + values.log().sum() + len(values) * math.log(2 * math.pi))
    return mean.to(torch.float64) + shift, posterior, evidence
