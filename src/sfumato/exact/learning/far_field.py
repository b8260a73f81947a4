r"""How fast the denoiser of a finite set of points becomes that of its Gaussian, as noise grows.

In `y = x / alpha` at noise-to-signal ratio `k` the posterior mean is the gradient of the points' log-moment generator, tilted by
`exp(-|x_0|^2 / 2 k^2)`. Its linear term is the Gaussian's answer and the first correction is the third cumulant, so that

    E |D_points - D_Gauss|^2  ->  |kappa_3|^2 / (2 k^4) + |kappa_4|^2 / (6 k^6) + ...          (|kappa_(n+1)|^2 / (n! k^2n) in general)
    1 - EV  ->  |kappa_3|^2 / (2 dim k^6)                                                     the share of the score left unexplained.

That wants `k` to exceed the data's radius. With the tilt and the noise's covariance `C = Sigma + k^2` kept, mode by mode, the first term is

    (k^4 / 2) sum_abc kappa_3,abc^2 / (C_a^2 C_b C_c),

good also where `k^2` is near the leading variances. Frobenius norms of cumulants are means over pairs of (centred) points:

    |kappa_3|^2 = mean_ij (x_i.x_j)^3,        whitened: mean_ij (x_i C^-2 x_j)(x_i C^-1 x_j)^2,
    |kappa_4|^2 = mean_ij (x_i.x_j)^4 - 6 mean_i (x_i Sigma x_i)^2 + 3 (tr Sigma^2)^2 + 6 tr Sigma^4.

Derived here, after the far-field argument of Wang & Vastola 2024 (arXiv 2412.09726), section 4 and appendix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError, DataError, ShapeError
from sfumato.exact.laws.gaussian import Gaussian

_BLOCK = 1024
"""So many rows of the matrix of scalar products at a time."""


@dataclass(frozen=True)
class Cumulants:
    """Squared Frobenius norms of the third and the fourth cumulant of a set of points, each as likely as any other."""

    third: float
    fourth: float


def cumulants(points: Float[Tensor, "N *event"]) -> Cumulants:
    """The norms in `O(N^2 dim)` operations and `O(N (dim + 1024))` memory, float64.

    Raises:
        DataError: fewer than two points.
    """
    x = _centred(points)
    n = len(x)
    image = torch.empty_like(x)  # Sigma x_i
    third = fourth = square = quartic = 0.0
    rows_of = torch.split(torch.arange(n, device=x.device), _BLOCK)
    spread = x.new_empty(n)
    for rows in rows_of:
        products = x[rows] @ x.T
        image[rows] = products @ x / n
        squares = products.square()
        spread[rows] = squares.mean(1)  # x_i Sigma x_i
        third += float((squares * products).sum())
        fourth += float(squares.square().sum())
        square += float(squares.sum())
    for rows in rows_of:
        quartic += float((x[rows] @ image.T).square().sum())
    pairs = n * n
    norm = fourth / pairs - 6 * float(spread.square().mean()) + 3 * (square / pairs) ** 2 + 6 * quartic / pairs
    # both are squares; rounding may leave a Gaussian-like set just below 0
    return Cumulants(max(third / pairs, 0.0), max(norm, 0.0))


@dataclass(frozen=True)
class FarField:
    """Predicted differences between a set's denoiser and its Gaussian's, one entry per ratio.

    Arguments:
        ratios: noise-to-signal ratios `k`.
        plain: `E |D_points - D_Gauss|^2` by the leading term, summed over coordinates.
        corrected: with the fourth cumulant's term.
        whitened: by the leading term with `C = Sigma + k^2`.
        unexplained: the leading term of `1 - EV`.
    """

    ratios: tuple[float, ...]
    plain: tuple[float, ...]
    corrected: tuple[float, ...]
    whitened: tuple[float, ...]
    unexplained: tuple[float, ...]


def far_field(points: Float[Tensor, "N *event"], law: Gaussian, ratios: Sequence[float]) -> FarField:
    """The predictions for a set of points and its Gaussian.

    Arguments:
        points: the set.
        law: its mean and covariance, e.g. `fit_gaussian`; directions that it has no variance in must have none in the points.
        ratios: positive.

    Raises:
        DataError: fewer than two points.
        ShapeError: points of another number of elements than the law's.
        ArgumentError: a ratio that is not positive.
    """
    if not ratios or not all(0 < k < math.inf for k in ratios):
        raise ArgumentError("ratios", list(ratios), "positive noise-to-signal ratios")
    x = _centred(points)
    if x.shape[1] != law.dim:
        raise ShapeError("points", tuple(points.shape), f"points of {law.dim} elements, as the law's")
    norms = cumulants(points)
    leading = [norms.third / (2 * k**4) for k in ratios]
    return FarField(
        tuple(float(k) for k in ratios),
        tuple(leading),
        tuple(a + norms.fourth / (6 * k**6) for a, k in zip(leading, ratios, strict=True)),
        tuple(_whitened(x, law.to(torch.float64), float(k)) for k in ratios),
        tuple(a / (law.dim * k**2) for a, k in zip(leading, ratios, strict=True)),
    )


def _whitened(x: Tensor, law: Gaussian, k: float) -> float:
    """`(k^4 / 2) mean_ij (x_i C^-2 x_j)(x_i C^-1 x_j)^2`."""
    once = law.covariance.apply(lambda v: 1 / (v + k**2), x)
    total = 0.0
    for rows in torch.split(torch.arange(len(x), device=x.device), _BLOCK):
        total += float(((once[rows] @ once.T) * (x[rows] @ once.T).square()).sum())
    return k**4 / 2 * total / len(x) ** 2


def _centred(points: Tensor) -> Tensor:
    if points.ndim < 2 or len(points) < 2:
        raise DataError("points", tuple(points.shape), "at least two points, (N, *event)")
    flat = points.detach().flatten(1).to(torch.float64)
    return flat - flat.mean(0)
