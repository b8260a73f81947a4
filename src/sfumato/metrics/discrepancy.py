r"""The unbiased estimate of a kernel discrepancy between two laws, and the unbiased variance of that estimate.

    D(P, Q) = E k(x, x') + E k(y, y') - 2 E k(x, y),

estimated by the U-statistic `D = T_xx + T_yy - 2 T_xy` of means over distinct pairs. Its Hoeffding decomposition has five uncorrelated
parts, two of first order (a function of one sample each) and three degenerate ones of second order,

    Var D = 4/n Var f(x) + 4/m Var g(y) + 2/(n (n-1)) E r_xx^2 + 2/(m (m-1)) E r_yy^2 + 4/(n m) E r_xy^2,
    f(x) = E k(x, x') - E k(x, y),    g(y) = E k(y, y') - E k(x, y),    r = the kernel less its two one-sample projections.

For equal laws f and g vanish and the second order is all there is: dropping it, as the usual standard error does, would make the variance
wrong just where a test decides. `E r^2` is estimated without bias by the mean square of the (U-)centred kernel matrix, which is known from
its row sums and its sum of squares, and `Var f` by the variance of the row means less what the r contribute to it,

    f_i = R_i/(n-2) - A_i/m,     E var_i(f_i) = Var f + E r_xx^2/(n-2) + E r_xy^2/m,     R_i, A_i row sums of k(x, x), k(x, y).

Sources: Hoeffding 1948 (doi 10.1214/aoms/1177730196); Szekely & Rizzo 2014 (arXiv 1310.2926) on U-centring; on
the variance of the maximum mean discrepancy, Sutherland & Deka 2019 (arXiv 1906.02104).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.metrics.estimate import Estimate

Kernel = Callable[[Tensor, Tensor], Tensor]
"""Rows `(a, d)` and `(b, d)` to the matrix `(a, b)` of a symmetric kernel."""


@dataclass(frozen=True)
class _Sums:
    """Row sums `(n,)`, column sums `(m,)` and the sum of squares of a kernel matrix."""

    rows: Tensor
    columns: Tensor
    squares: float


def discrepancy(x: Tensor, y: Tensor, kernel: Kernel, block: int) -> Estimate:
    """`D` between float64 samples `(n, d)` and `(m, d)`, at least 4 of each, in tiles of `block` by `block` of the kernel matrix.

    Raises:
        ArgumentError: a block under 1.
    """
    if block < 1:
        raise ArgumentError("block", block, "at least one sample at a time")
    n, m = len(x), len(y)
    xx, yy, xy = _within(x, kernel, block), _within(y, kernel, block), _between(x, y, kernel, block)
    value = float(xx.rows.sum() / (n * (n - 1)) + yy.rows.sum() / (m * (m - 1)) - 2 * xy.rows.sum() / (n * m))
    first, second = _variance(xx, yy, xy)
    # an unbiased estimate of something near 0 falls on both sides of it
    return Estimate(value, math.sqrt(max(0.0, first) + second))


def _variance(xx: _Sums, yy: _Sums, xy: _Sums) -> tuple[float, float]:
    """The unbiased estimates of the first and the second order of `Var D`."""
    n, m = len(xy.rows), len(xy.columns)
    r_xx, r_yy, r_xy = _residual_within(xx), _residual_within(yy), _residual_between(xy)
    var_f = float((xx.rows / (n - 2) - xy.rows / m).var()) - r_xx / (n - 2) - r_xy / m
    var_g = float((yy.rows / (m - 2) - xy.columns / n).var()) - r_yy / (m - 2) - r_xy / n
    second = 2 * r_xx / (n * (n - 1)) + 2 * r_yy / (m * (m - 1)) + 4 * r_xy / (n * m)
    return 4 * var_f / n + 4 * var_g / m, second


def _between(x: Tensor, y: Tensor, kernel: Kernel, block: int) -> _Sums:
    rows, columns, squares = torch.zeros_like(x[:, 0]), torch.zeros_like(y[:, 0]), 0.0
    for i in range(0, len(x), block):
        for j in range(0, len(y), block):
            tile = kernel(x[i : i + block], y[j : j + block])
            rows[i : i + block] += tile.sum(1)
            columns[j : j + block] += tile.sum(0)
            squares += float(tile.square().sum())
    return _Sums(rows, columns, squares)


def _within(x: Tensor, kernel: Kernel, block: int) -> _Sums:
    """Without the diagonal; only the tiles on and above it are computed."""
    rows, squares = torch.zeros_like(x[:, 0]), 0.0
    for i in range(0, len(x), block):
        for j in range(i, len(x), block):
            tile = kernel(x[i : i + block], x[j : j + block])
            if i == j:
                tile.fill_diagonal_(0.0)
            else:
                rows[j : j + block] += tile.sum(0)
            rows[i : i + block] += tile.sum(1)
            squares += float(tile.square().sum()) * (1 if i == j else 2)
    return _Sums(rows, rows, squares)


def _residual_within(sums: _Sums) -> float:
    """`E r^2`: the sum of squares of the U-centred matrix, over `n (n - 3)`."""
    n, rows = len(sums.rows), sums.rows
    total = sums.squares - 2 * float(rows.square().sum()) / (n - 2) + float(rows.sum()) ** 2 / ((n - 1) * (n - 2))
    return max(0.0, total) / (n * (n - 3))


def _residual_between(sums: _Sums) -> float:
    """`E r^2`: the sum of squares of the doubly centred matrix, over `(n - 1)(m - 1)`."""
    n, m = len(sums.rows), len(sums.columns)
    ordered = float(sums.rows.square().sum()) / m + float(sums.columns.square().sum()) / n
    total = sums.squares - ordered + float(sums.rows.sum()) ** 2 / (n * m)
    return max(0.0, total) / ((n - 1) * (m - 1))
