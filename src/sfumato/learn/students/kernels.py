r"""Kernel discrepancies as losses: differentiable in both samples, where `sfumato.metrics.mmd` measures with error bars.

    MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean k(x_i, y_j)

is unbiased, so it is negative about half of the time for equal laws; clamping it would bias its gradient. A polynomial kernel of degree `d`
sees the first `d` moments and nothing else; only a characteristic kernel (Gaussian) vanishes for equal laws alone.

Sources: Gretton et al. 2012, A kernel two-sample test, JMLR 13, lemma 6; the kernels of Aiello et al. 2023 (arXiv 2301.07969).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError, DataError, ShapeError

Kernel = Callable[[Tensor, Tensor], Tensor]
"""Rows `(a, d)` and `(b, d)` to the matrix `(a, b)` of a symmetric kernel."""


def polynomial(degree: int = 3) -> Kernel:
    """`(<a, b>/d + 1)^degree`; degree 1 is the linear kernel.

    Raises:
        ArgumentError: a degree under 1.
    """
    if degree < 1:
        raise ArgumentError("degree", degree, "at least 1")
    return lambda a, b: (a @ b.T / a.shape[1] + 1) ** degree


def gaussian(bandwidths: Sequence[int | float] | None = None) -> Kernel:
    """`mean_h exp(-|a - b|^2 / 2 h^2)`; without bandwidths the single `exp(-|a - b|^2/d)`.

    Raises:
        ArgumentError: a bandwidth that is not positive, or none in a list.
    """
    if bandwidths is not None and not (len(bandwidths) and all(0 < h < math.inf for h in bandwidths)):
        raise ArgumentError("bandwidths", list(bandwidths), "positive numbers, at least one")

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        # not cdist, whose gradient is not defined at distance 0
        squares = (a.square().sum(1, keepdim=True) + b.square().sum(1) - 2 * a @ b.T).clamp(min=0)
        widths = [math.sqrt(a.shape[1] / 2)] if bandwidths is None else bandwidths
        return torch.stack([torch.exp(squares / (-2 * h**2)) for h in widths]).mean(0)

    return kernel


def per_class(kernel: Kernel) -> Kernel:
    """The kernel between rows of the same class, 0 between classes; the class is the rows' last number."""
    return lambda a, b: kernel(a[:, :-1], b[:, :-1]) * (a[:, -1:] == b[:, -1:].T)


def kernel_loss(x: Float[Tensor, "n d"], y: Float[Tensor, "m e"], kernel: Kernel) -> Float[Tensor, ""]:
    """The unbiased `MMD^2` of the module's head, differentiable.

    Raises:
        DataError: fewer than 2 samples.
        ShapeError: rows of different widths.
    """
    if min(len(x), len(y)) < 2:
        raise DataError("x, y", (len(x), len(y)), "at least 2 samples of each")
    if x.shape[1] != y.shape[1]:
        raise ShapeError("y", tuple(y.shape), f"rows of {x.shape[1]} numbers")
    return _distinct(kernel(x, x)) + _distinct(kernel(y, y)) - 2 * kernel(x, y).mean()


def _distinct(gram: Tensor) -> Tensor:
    """The mean off the diagonal."""
    n = len(gram)
    return (gram.sum() - gram.diagonal().sum()) / (n * (n - 1))
