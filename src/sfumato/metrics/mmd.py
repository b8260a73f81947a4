r"""The squared maximum mean discrepancy of Gaussian kernels, `k(x, y) = mean_h exp(-|x - y|^2 / 2 h^2)`.

Source: Gretton et al. 2012, A kernel two-sample test, JMLR 13, lemma 6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sfumato.data.dataset import permutation
from sfumato.errors import ArgumentError, DataError
from sfumato.metrics.discrepancy import discrepancy
from sfumato.metrics.estimate import Estimate
from sfumato.metrics.samples import as_pair

_MEDIAN_OF = 1000  # samples whose distances the median is taken of


def mmd(x: Tensor, y: Tensor, bandwidths: Sequence[int | float] | None = None, block: int = 2048) -> Estimate:
    """`MMD^2` between two samples: unbiased, so negative half of the time for equal laws.

    The standard error is that of `energy_distance`; it takes the bandwidths as given.

    Arguments:
        x, y: `(n, *event)` and `(m, *event)`.
        bandwidths: the `h`; without them 1/2, 1 and 2 times the median distance of (at most 1,000, chosen by a fixed seed) samples of both.
        block: the side of the tiles in which the kernel matrix is computed.

    Raises:
        ArgumentError: no bandwidth or one that is not positive, a block under 1.
        DataError: fewer than 4 samples, NaN or infinite values, a median distance of 0.
        ShapeError: events of different shapes.
    """
    if bandwidths is not None and not (len(bandwidths) and all(0 < h < math.inf for h in bandwidths)):
        raise ArgumentError("bandwidths", list(bandwidths), "positive numbers, at least one")
    a, b = as_pair(x, y, least=4)
    centre = a.mean(0)
    a, b = a - centre, b - centre
    chosen = _around_median(a, b) if bandwidths is None else bandwidths

    def kernel(u: Tensor, v: Tensor) -> Tensor:
        squares = torch.cdist(u, v).square_()
        return torch.stack([torch.exp(squares / (-2 * h**2)) for h in chosen]).mean(0)

    return discrepancy(a, b, kernel, block)


def _around_median(a: Tensor, b: Tensor) -> list[float]:
    pooled = torch.cat([a, b])
    some = pooled[permutation(len(pooled))[:_MEDIAN_OF].to(pooled.device)]
    median = float(torch.pdist(some).median())
    if median == 0:
        raise DataError("x, y", "samples of which most are the same", "a positive median distance", "Give bandwidths.")
    return [median / 2, median, 2 * median]
