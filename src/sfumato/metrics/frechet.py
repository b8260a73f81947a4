r"""The Frechet distance of two samples: the squared 2-Wasserstein distance of the Gaussians fitted to them.

The plug-in value is biased upwards by `b_1/n + b_2/m + ...`, so it depends on the sample sizes and is positive for equal laws. Bias and
standard error come from the delete-a-block jackknife, applied to each sample in turn: with the value `F` of all samples and `F_g` of all
but block `g` of `G`, `n_g` samples of `n`, and `h_g = n / n_g`,

    bias      sum_g (1 - 1/h_g) F_g - (G - 1) F
    variance  1/G sum_g (F'_g - F + bias)^2 / (h_g - 1),      F'_g = h_g F - (h_g - 1) F_g.

Sources: Frechet distance of Gaussians, Dowson & Landau 1982 (doi 10.1016/0047-259X(82)90077-X); unequal blocks, Busing, Meijer & van der
Leeden 1999 (doi 10.1023/A:1008800423698).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.data.dataset import permutation
from sfumato.errors import ArgumentError
from sfumato.metrics.estimate import Estimate
from sfumato.metrics.gaussian import factor
from sfumato.metrics.samples import as_pair

_Gaussian = tuple[Tensor, Tensor]  # its mean (d,) and covariance (d, d)
_Moments = tuple[int, Tensor, Tensor]  # how many, their sum (d,), the sum of their outer products (d, d)


@dataclass(frozen=True)
class FrechetEstimate(Estimate):
    """A Frechet distance whose first-order `bias` has been taken off: `value + bias` is the plug-in value of the literature."""

    bias: float


def frechet_distance(x: Tensor, y: Tensor, blocks: int = 20, seed: int = 0) -> FrechetEstimate:
    """`W_2^2` between the laws' Gaussian fits, with the jackknife's bias removed, so it may be negative for laws that are alike.

    The standard error covers the sampling of both batches. Both are asymptotic: trust them where the samples are many times the dimension.
    It costs the eigenvalues of `2 blocks + 3` matrices `(d, d)`.

    Arguments:
        x, y: `(n, *event)` and `(m, *event)`.
        blocks: into how many blocks of random samples each batch is cut (at most one sample a block).
        seed: of the blocks.

    Raises:
        ArgumentError: fewer than 2 blocks.
        DataError: fewer than 4 samples, NaN or infinite values.
        ShapeError: events of different shapes.
    """
    if blocks < 2:
        raise ArgumentError("blocks", blocks, "at least 2")
    a, b = _in_common_span(*as_pair(x, y, least=4))
    parts_a, parts_b = _block_moments(a, blocks, seed), _block_moments(b, blocks, seed)
    from_a, from_b = _distance_from(_fit(_total(parts_a))), _distance_from(_fit(_total(parts_b)))
    plug_in = from_b(_fit(_total(parts_a)))
    bias_a, variance_a = _jackknife(plug_in, parts_a, from_b)
    bias_b, variance_b = _jackknife(plug_in, parts_b, from_a)
    return FrechetEstimate(plug_in - bias_a - bias_b, math.sqrt(variance_a + variance_b), bias_a + bias_b)


def _in_common_span(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both centred at the mean of `a`, and rotated into the span of all samples where that has fewer dimensions than the events."""
    pooled = torch.cat([a, b]) - a.mean(0)
    if pooled.shape[0] < pooled.shape[1]:
        pooled = torch.linalg.qr(pooled.T, mode="r")[1].T
    return pooled[: len(a)], pooled[len(a) :]


def _block_moments(x: Tensor, blocks: int, seed: int) -> list[_Moments]:
    order = permutation(len(x), seed).to(x.device)
    return [(len(part), x[part].sum(0), x[part].T @ x[part]) for part in order.tensor_split(min(blocks, len(x)))]


def _total(parts: list[_Moments]) -> _Moments:
    counts, sums, products = zip(*parts, strict=True)
    return sum(counts), torch.stack(sums).sum(0), torch.stack(products).sum(0)


def _fit(moments: _Moments) -> _Gaussian:
    n, total, products = moments
    mean = total / n
    return mean, (products - n * torch.outer(mean, mean)) / (n - 1)


def _distance_from(origin: _Gaussian) -> Callable[[_Gaussian], float]:
    """`W_2^2` to a fixed Gaussian. The trace form is taken: the half of the digits that it may lose is below any sampling error."""
    mean, cov = origin
    s = factor(cov)

    def distance(other: _Gaussian) -> float:
        roots = torch.linalg.eigvalsh(s.T @ other[1] @ s).clamp(min=0).sqrt()
        return float((mean - other[0]).square().sum() + cov.trace() + other[1].trace() - 2 * roots.sum())

    return distance


def _jackknife(value: float, parts: list[_Moments], distance: Callable[[_Gaussian], float]) -> tuple[float, float]:
    """The bias and the variance of `value`, the distance of all parts together."""
    n, total, products = _total(parts)
    without = [distance(_fit((n - k, total - part, products - outer))) for k, part, outer in parts]
    share = [n / k for k, _, _ in parts]
    bias = sum((1 - 1 / h) * v for h, v in zip(share, without, strict=True)) - (len(parts) - 1) * value
    pseudo = [h * value - (h - 1) * v for h, v in zip(share, without, strict=True)]
    variance = sum((f - value + bias) ** 2 / (h - 1) for h, f in zip(share, pseudo, strict=True)) / len(parts)
    return bias, variance
