r"""Wasserstein distances on the line, exactly, and their average over the directions of space.

On the line the optimal plan couples quantiles: `W_p^p = int_0^1 |F^{-1}(u) - G^{-1}(u)|^p du`. For samples of sizes `n` and `m` the
integrand is constant between the levels `i/n` and `j/m`, so the integral is a finite sum, also for `n != m`. The sliced distance is
`SW_p^p = E_theta W_p^p(theta . x, theta . y)` over the unit sphere. Sources: Villani 2003, Topics in Optimal Transportation, section 2.2;
Bonneel, Rabin, Peyre & Pfister 2015 (doi 10.1007/s10851-014-0506-3).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sfumato import seeds
from sfumato.errors import ArgumentError, ShapeError
from sfumato.metrics.estimate import Estimate
from sfumato.metrics.samples import as_pair

_BLOCK = 2**24  # projected numbers held at once


def wasserstein_1d(x: Tensor, y: Tensor, p: int | float = 2) -> float:
    """`W_p` between the empirical laws of two samples of real numbers `(n,)` and `(m,)`, exactly.

    Raises:
        ArgumentError: `p` under 1 or infinite.
        DataError: no samples, NaN or infinite values.
        ShapeError: other shapes.
    """
    _check_power(p)
    if x.ndim != 1 or y.ndim != 1:
        raise ShapeError("x, y", (tuple(x.shape), tuple(y.shape)), "samples of real numbers (n,) and (m,)")
    a, b = as_pair(x, y, least=1)
    return float(_couple(a.sort(0).values, b.sort(0).values, p)) ** (1 / p)


def sliced_wasserstein(x: Tensor, y: Tensor, projections: int = 256, p: int | float = 2, seed: int = 0) -> Estimate:
    """`SW_p` between two samples, over `projections` random directions.

    The standard error covers the directions and the sampling of both batches: with the optimal dual potentials `phi + psi` of every
    direction, `Var SW_p^p = Var_theta(W_p^p)/projections + Var(mean_theta phi(x))/n + Var(mean_theta psi(y))/m`, then the delta method for
    the p-th root. The value of finite samples is biased upwards, it is not 0 for two samples of one law; there the standard error, which is
    of first order, means little. Compare with the value of two samples of the reference.

    Arguments:
        x, y: `(n, *event)` and `(m, *event)`.
        projections: how many directions.
        p: the power, at least 1.
        seed: of the directions.

    Raises:
        ArgumentError: `p` under 1 or infinite, no projections.
        DataError: fewer than 2 samples, NaN or infinite values.
        ShapeError: events of different shapes.
    """
    _check_power(p)
    if projections < 2:
        raise ArgumentError("projections", projections, "at least 2 directions")
    a, b = as_pair(x, y, least=2)
    directions = seeds.noise(seed, projections, a.shape[1:], dtype=torch.float64, device=a.device).draw(0)
    directions /= directions.norm(dim=1, keepdim=True)
    costs, phi, psi = [], torch.zeros_like(a[:, 0]), torch.zeros_like(b[:, 0])
    for some in torch.split(directions, max(1, _BLOCK // (len(a) + len(b)))):
        (u, by_u), (v, by_v) = (a @ some.T).sort(0), (b @ some.T).sort(0)
        costs.append(_couple(u, v, p))
        phi += torch.zeros_like(u).scatter_(0, by_u, _potential(u, v, p)).sum(1) / projections
        psi += torch.zeros_like(v).scatter_(0, by_v, _potential(v, u, p)).sum(1) / projections
    cost = torch.cat(costs)
    mean = float(cost.mean())
    variance = float(cost.var() / projections + phi.var() / len(a) + psi.var() / len(b))
    value = mean ** (1 / p)
    return Estimate(value, math.sqrt(variance) * value / (p * mean) if mean > 0 else 0.0)


def _check_power(p: int | float) -> None:
    if not 1 <= p < math.inf:
        raise ArgumentError("p", p, "a power of at least 1, and finite")


def _couple(u: Tensor, v: Tensor, p: int | float) -> Tensor:
    """`W_p^p` of every column of sorted samples `(n, k)` and `(m, k)`, shape `(k,)`."""
    n, m = len(u), len(v)
    # levels in units of 1/(n m), where they are integers and equal ones are exactly equal
    ends = torch.unique(torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]))
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    weights = ((ends - starts).to(torch.float64) / (n * m)).to(u.device)
    i, j = (starts // m).to(u.device), (starts // n).to(u.device)
    return weights @ (u[i] - v[j]).abs() ** p


def _potential(u: Tensor, v: Tensor, p: int | float) -> Tensor:
    """The optimal dual potential at the sorted samples `u` `(n, k)` against `v` `(m, k)`, up to a constant a column.

    Neighbours `u_i`, `u_{i+1}` are both coupled with the `v_j` at their common level, so `phi_{i+1} - phi_i` is the difference of their
    costs to `v_j`; where two `v_j` meet at this level the potential is not unique and the middle is taken.
    """
    n, m = len(u), len(v)
    levels = torch.arange(1, n, device=u.device) * m
    rise = torch.zeros_like(u)
    for j in ((levels - 1) // n, levels // n):
        rise[1:] += ((u[1:] - v[j]).abs() ** p - (u[:-1] - v[j]).abs() ** p) / 2
    return rise.cumsum(0)
