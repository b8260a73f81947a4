r"""The 2-Wasserstein distance of two Gaussians, exactly.

    W_2^2 = |m_1 - m_2|^2 + tr C_1 + tr C_2 - 2 tr (C_1^{1/2} C_2 C_1^{1/2})^{1/2}

The trace form loses half of all digits where the covariances are alike or singular. With any factors `C_i = S_i S_i^T` the same number is a
Procrustes problem,

    min over orthogonal O of |S_1 - S_2 O|_F^2,      O = P Q^T  for the singular vectors  S_2^T S_1 = P diag(s) Q^T,

a sum of squares that is small only if it should be; the factors come from eigenvalues. Sources: Dowson & Landau 1982 (doi
10.1016/0047-259X(82)90077-X); Bhatia, Jain & Lim 2019 (arXiv 1712.01504).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sfumato.errors import ArgumentError, DataError, ShapeError


def gaussian_w2(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> float:
    """`W_2` (not squared) between `N(mean1, cov1)` and `N(mean2, cov2)`, in float64.

    Arguments:
        mean1, mean2: `(d,)`.
        cov1, cov2: `(d, d)`, dense, symmetric and positive semidefinite up to rounding; they may be singular.

    Raises:
        ArgumentError: a covariance that is not one.
        DataError: NaN or infinite entries.
        ShapeError: other shapes.
    """
    d = mean1.shape[0] if mean1.ndim else 0
    for name, mean, cov in (("1", mean1, cov1), ("2", mean2, cov2)):
        if mean.shape != (d,) or cov.shape != (d, d) or d == 0:
            given = f"{tuple(mean.shape)} and {tuple(cov.shape)}"
            raise ShapeError(f"mean{name}, cov{name}", given, f"shapes (d,) and (d, d) with d = {d or 'at least 1'}")
        if not bool(torch.isfinite(mean).all() and torch.isfinite(cov).all()):
            raise DataError(f"mean{name}, cov{name}", "NaN or infinite entries", "finite numbers")
        _check_covariance(cov, f"cov{name}")
    s1, s2 = factor(cov1.to(torch.float64)), factor(cov2.to(torch.float64))
    p, _, qt = torch.linalg.svd(s2.T @ s1)
    apart = mean1.to(torch.float64) - mean2.to(torch.float64)
    return math.sqrt(float(apart.square().sum() + (s1 - s2 @ (p @ qt)).square().sum()))


def factor(cov: Tensor) -> Tensor:
    """`S` with `S S^T = cov`, `(d, d)`.

    Eigenvalues below the rounding of the largest stand for zeros: their roots would be far above rounding.
    """
    values, vectors = torch.linalg.eigh((cov + cov.T) / 2)
    rounding = len(values) * torch.finfo(cov.dtype).eps * values[-1]
    return vectors * values.where(values > rounding, 0.0).sqrt()


def _check_covariance(cov: Tensor, name: str) -> None:
    # the user's matrix was rounded in its own dtype, whatever we compute in
    slack = 10 * len(cov) * torch.finfo(cov.dtype).eps * float(cov.abs().max())
    if float((cov - cov.T).abs().max()) > slack:
        raise ArgumentError(name, "a matrix that is not symmetric", "a covariance")
    least = float(torch.linalg.eigvalsh(cov.to(torch.float64))[0])
    if least < -slack:
        raise ArgumentError(name, f"an eigenvalue of {least:.3g}", "a covariance, with no negative eigenvalue")
