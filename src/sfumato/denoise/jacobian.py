r"""The denoiser's Jacobian, and the covariance of the data as a denoiser sees it around a noisy point.

With `J = dD/dx` at `x_t`, the second-order Tweedie formula says `Cov[x_0 | x_t] = (sigma^2 / alpha) J`. An eigenvalue `g` of `alpha J` is
the share of noise that the denoiser keeps along its eigenvector: where the data are locally Gaussian with variance `l` there,

    g = alpha^2 l / (alpha^2 l + sigma^2),        l = sigma^2 g / (alpha^2 (1 - g)).

So `g > 1/2` marks the directions in which the data vary more than the noise. The Jacobian of an exact denoiser is symmetric; a network's is
so only nearly, and its symmetric part is used.
Sources: Wang & Vastola 2023 (arXiv 2303.02490), section 4; block Krylov method: Musco & Musco 2015 (arXiv 1504.05477).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import ExactDenoiser
from sfumato.seeds import Seed, noise

CEILING = 0.999
"""The gain at which `variances` stops: at 1 and above, as between modes, no variance of a locally Gaussian law explains it."""

_OVERSAMPLING = 2
_ROWS = 1024
"""So many noisy points are asked at once."""


def jacobian_products(
    denoiser: Denoiser,
    x: Float[Tensor, "batch *event"],
    t: float,
    v: Float[Tensor, "..."],
    condition: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`J v` and `J^T v` with `J = dD/dx` at `x_t = x`, both `(batch, columns, *event)` as `v`.

    `J^T u` is a gradient, linear in `u`, so that `J v` is the gradient of `<J^T u, v>` with respect to `u`. An exact denoiser's Jacobian is
    symmetric and costs the first gradient alone.

    Raises:
        ShapeError: `v` does not hold columns of the shape of `x`.
    """
    if v.ndim != x.ndim + 1 or v.shape[0] != x.shape[0] or v.shape[2:] != x.shape[1:]:
        raise ShapeError("v", tuple(v.shape), f"(batch, columns, *event) for x of shape {tuple(x.shape)}")
    rows = x.detach().repeat_interleave(v.shape[1], 0)
    given = None if condition is None else condition.repeat_interleave(v.shape[1], 0)
    columns = v.detach().to(x.dtype).flatten(0, 1)
    forward, back = [], []
    for i in range(0, len(rows), _ROWS):
        part = slice(i, i + _ROWS)
        # the fused kernels of attention have no second derivative
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            pushed, pulled = _products(denoiser, rows[part], t, columns[part], None if given is None else given[part])
        forward.append(pushed.detach())
        back.append(pulled.detach())
    return torch.cat(forward).reshape(v.shape), torch.cat(back).reshape(v.shape)


def _products(denoiser: Denoiser, x: Tensor, t: float, v: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
    x, u = x.clone().requires_grad_(), v.clone().requires_grad_()
    said = denoiser.denoise(x, t, condition)
    if isinstance(denoiser, ExactDenoiser):
        pulled = torch.autograd.grad(said, x, v)[0]
        return pulled, pulled
    pulled = torch.autograd.grad(said, x, u, create_graph=True)[0]
    return torch.autograd.grad(pulled, u, v)[0], pulled


@dataclass(frozen=True)
class LocalCovariance:
    """The leading eigenpairs of the symmetric part of `alpha J` at each of a batch of noisy points.

    Arguments:
        alpha, sigma: the noise level.
        directions: orthonormal eigenvectors, `(batch, k, *event)`.
        gains: the eigenvalues `g`, falling, float64 `(batch, k)`.
        residuals: `|S v - g v|` of every pair, float64 `(batch, k)`.
        asymmetry: `|J - J^T| / |J + J^T|` (Frobenius norms, estimated on random directions), float64 `(batch,)`.
        tolerance: what the residuals were to reach.
    """

    alpha: float
    sigma: float
    directions: Float[Tensor, "batch k *event"]
    gains: Float[Tensor, "batch k"]
    residuals: Float[Tensor, "batch k"]
    asymmetry: Float[Tensor, " batch"]
    tolerance: float

    @property
    def converged(self) -> Bool[Tensor, " batch"]:
        """Whether all residuals of a point are within the tolerance."""
        return (self.residuals <= self.tolerance).all(1)

    @property
    def posterior_variances(self) -> Float[Tensor, "batch k"]:
        """The variances of `x_0` given `x_t` along the directions, `sigma^2 g / alpha^2`."""
        return (self.sigma / self.alpha) ** 2 * self.gains

    @property
    def variances(self) -> Float[Tensor, "batch k"]:
        """The local variances of the data, `sigma^2 g / (alpha^2 (1 - g))`, with `g` held within [0, `CEILING`]."""
        g = self.gains.clamp(0.0, CEILING)
        return (self.sigma / self.alpha) ** 2 * g / (1 - g)


def local_covariance(
    denoiser: Denoiser,
    x: Float[Tensor, "batch *event"],
    t: float,
    k: int,
    *,
    condition: Tensor | None = None,
    blocks: int = 24,
    tolerance: float = 1e-3,
    seed: Seed = 0,
) -> LocalCovariance:
    """The `k` leading eigenpairs of the symmetric part of `alpha dD/dx` at each `x_t = x`.

    A Krylov space of all products so far is kept and searched for its best vectors. It ends when the residuals are within `tolerance` or
    after `blocks` blocks of `k + 2` products each, whichever is first; where it fills the whole space the pairs are exact.

    Arguments:
        denoiser: whose Jacobian it is.
        x: noisy points.
        t: their time, strictly between both ends of the signal and the noise.
        k: how many pairs.
        condition: as the denoiser takes it, one row per point.
        blocks: the most blocks of products.
        tolerance: on `|S v - g v|`; `g` lies between 0 and 1.
        seed: of the random directions it starts from.

    Raises:
        ArgumentError: a time without signal or without noise, or more pairs than dimensions.
    """
    alpha, sigma = (float(c) for c in denoiser.process.levels(float(t)))
    if not (alpha > 0 and sigma > 0):
        raise ArgumentError("t", t, "a time with both signal and noise")
    dim = x[0].numel()
    if not 1 <= k <= dim or blocks < 1:
        raise ArgumentError("k, blocks", (k, blocks), f"1 to {dim} eigenpairs, by at least one block")
    start = noise(seed, len(x), (min(k + _OVERSAMPLING, dim), *x.shape[1:]), dtype=x.dtype, device=x.device).draw(0)
    forward, back = jacobian_products(denoiser, x, t, start, condition)
    skew, total = _norm(forward - back), _norm(forward + back)

    def product(v: Tensor) -> Tensor:
        v = v.transpose(1, 2).reshape(len(x), -1, *x.shape[1:])
        forward, back = jacobian_products(denoiser, x, t, v, condition)
        return alpha / 2 * (forward.to(torch.float64) + back).flatten(2).transpose(1, 2)

    values, vectors, residuals = _krylov(product, start.flatten(2).transpose(1, 2).to(torch.float64), k, blocks, tolerance)
    directions = vectors.transpose(1, 2).reshape(len(x), k, *x.shape[1:]).to(x.dtype)
    return LocalCovariance(alpha, sigma, directions, values, residuals, torch.where(total > 0, skew / total, 0.0), tolerance)


def _norm(v: Tensor) -> Tensor:
    return torch.linalg.vector_norm(v.flatten(1).to(torch.float64), dim=1)


def _krylov(product: Callable[[Tensor], Tensor], start: Tensor, k: int, blocks: int, tolerance: float) -> tuple[Tensor, Tensor, Tensor]:
    """The largest eigenvalues `(batch, k)` of symmetric maps, their vectors `(batch, dim, k)` and residuals `(batch, k)`."""
    dim = start.shape[1]
    basis, image = start[..., :0], start[..., :0]
    block = start
    for _ in range(blocks):
        block = _outside(block[..., : dim - basis.shape[2]], basis)
        basis = torch.cat([basis, block], 2)
        latest = product(block)
        image = torch.cat([image, latest], 2)
        small = basis.transpose(1, 2) @ image
        values, inner = torch.linalg.eigh((small + small.transpose(1, 2)) / 2)
        values, inner = values.flip(1)[:, :k], inner.flip(2)[..., :k]
        vectors = basis @ inner
        residuals = torch.linalg.vector_norm(image @ inner - values[:, None] * vectors, dim=1)
        if bool((residuals <= tolerance).all()) or basis.shape[2] == dim:
            break
        block = latest
    return values, vectors, residuals


def _outside(block: Tensor, basis: Tensor) -> Tensor:
    """An orthonormal block orthogonal to the basis; three passes, for columns that lie in its span to rounding leave noise behind."""
    for _ in range(3):
        block = torch.linalg.qr(block - basis @ (basis.transpose(1, 2) @ block))[0]
    return block
