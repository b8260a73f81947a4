r"""The leading eigenvectors of a covariance that is only ever seen as products with a thin matrix.

For orthonormal `Q` `(dim, w)` and `Y = C Q`, the Nystroem approximation `Y (Q^T Y)^{-1} Y^T` lies between 0 and `C`; its leading part and
the trace of `C` give a low-rank covariance plus isotropic rest. Orthonormalising `Y` and multiplying again is subspace iteration.
Source: Tropp, Yurtsever, Udell & Cevher 2017 (arXiv 1706.05736), algorithm 3.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.exact.spectral.basis import MatrixBasis
from sfumato.exact.spectral.covariance import SpectralCovariance

OVERSAMPLING = 10
"""How many more columns than the wanted rank a sketch has."""


def random_system(dim: int, rank: int, seed: int, device: torch.device) -> Float[Tensor, "dim width"]:
    """Orthonormal columns in random directions, enough for a sketch of the given rank."""
    generator = torch.Generator().manual_seed(seed)
    width = min(dim, rank + OVERSAMPLING)
    return torch.linalg.qr(torch.randn(dim, width, generator=generator, dtype=torch.float64).to(device)).Q


def orthonormal(columns: Float[Tensor, "*batch dim width"]) -> Float[Tensor, "*batch dim width"]:
    """An orthonormal system that spans the columns."""
    return torch.linalg.qr(columns).Q


def nystroem(
    system: Float[Tensor, "dim width"], product: Float[Tensor, "dim width"], trace: float, rank: int, floor: float
) -> SpectralCovariance:
    """The covariance `C` with `product = C system` and the given trace, as `rank` modes plus isotropic rest.

    Arguments:
        system: orthonormal columns.
        product: `C system`.
        trace: `tr C`.
        rank: at most `width`.
        floor: added to the variance in every direction.
    """
    # the shift makes the Cholesky factor exist when C has a lower rank than the sketch; it is taken off again
    shift = (
        torch.finfo(torch.float64).eps
        * max(float(torch.linalg.vector_norm(product)), torch.finfo(torch.float64).tiny)
        * len(product) ** 0.5
    )
    shifted = product + shift * system
    small = system.T @ shifted
    factor = torch.linalg.cholesky((small + small.T) / 2)
    vectors, values, _ = torch.linalg.svd(torch.linalg.solve_triangular(factor, shifted.T, upper=False).T, full_matrices=False)
    values = (values[:rank] ** 2 - shift).clamp(min=0)
    left = len(product) - rank
    # below 0 only by rounding: the approximation never exceeds C
    rest = max(trace - float(values.sum()), 0.0) / left if left else 0.0
    return SpectralCovariance(MatrixBasis(vectors[:, :rank], check=False), values + floor, rest + floor)
