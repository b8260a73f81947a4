r"""Transitions of linear SDEs with constant coefficients, from one matrix exponential and repeated doubling.

Over a short time Van Loan's exponential `exp [[F, Q], [0, -F^T]] = [[Phi, Y], [0, *]]`, `S = Y Phi^T` is accurate entry by entry, also
where the noise reaches a channel only in the third order of time; over a long one its lower block overflows. Doubling, `Phi <- Phi^2`,
`S <- Phi S Phi^T + S`, adds positive semi-definite matrices only, so nothing cancels, and no stationary law is needed.
Source: Van Loan 1978 (IEEE Trans. Automatic Control 23, 395).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.errors import ArgumentError

_DEGREE = 14

Coefs = tuple[Tensor, Tensor, Tensor]
"""`(F, C, Q)` or `(Phi, O, S)`: float64 `(..., n, K, K)`, `(..., n, K, conditions)` and `(..., n, K, K)`; the middle one acts on the
condition."""


def constant_transition(drift: Tensor, gain: Tensor, noise: Tensor) -> Coefs:
    """`(Phi, O, S)` of `dx = (F x + C y) dt + G dw`, `G G^T = Q`, over a unit of time; `y` is constant.

    Arguments:
        drift, gain, noise: `F`, `C`, `Q`, already multiplied by the time.

    Raises:
        ArgumentError: entries that are not finite.
    """
    k, y = drift.shape[-1], gain.shape[-1]
    lead = torch.broadcast_shapes(drift.shape[:-2], gain.shape[:-2], noise.shape[:-2])  # type: ignore[no-untyped-call]
    drift, gain, noise = (c.expand(*lead, *c.shape[-2:]) for c in (drift, gain, noise))
    big = torch.cat([torch.cat([drift, gain], -1), drift.new_zeros(*drift.shape[:-2], y, k + y)], -2)
    size = big.detach().abs().sum(-1).amax(-1)
    if not bool(torch.isfinite(size).all()) or not bool(torch.isfinite(noise).all()):
        hint = "Stop short of a singular end."
        raise ArgumentError("t", "coefficients that are not finite", "times at which drift and noise are finite", hint)
    if k == 1:
        return torch.exp(drift), gain * _mean_growth(drift), noise * _mean_growth(2 * drift)
    # each block is halved as often as it needs: no digit of a short time is lost, and none depends on what else is in the batch
    halvings = torch.ceil(torch.log2(size / 0.25)).clamp(min=0)
    scale = torch.exp2(-halvings)[..., None, None]
    big, spread = big * scale, noise * scale
    top = torch.cat([big[..., :k, :k], spread], -1)
    bottom = torch.cat([torch.zeros_like(spread), -big[..., :k, :k].mT], -1)
    covariance = short_exponential(torch.cat([top, bottom], -2))[..., :k, k:]
    power = short_exponential(big)
    covariance = covariance @ power[..., :k, :k].mT
    for done in range(int(halvings.max()) if halvings.numel() else 0):
        more = (done < halvings)[..., None, None]
        phi = power[..., :k, :k]
        covariance = torch.where(more, covariance + phi @ covariance @ phi.mT, covariance)
        power = torch.where(more, power @ power, power)
    return power[..., :k, :k], power[..., :k, k:], (covariance + covariance.mT) / 2


def short_exponential(matrix: Tensor) -> Tensor:
    """Taylor's series to degree 14, for drifts of norm up to 1/4: beyond it lies 1e-20.

    Entries that only appear in the third order of a short time keep all their digits; PyTorch's exponential stops where the largest entry
    is accurate, which takes 1e-7 off them, and not the same in a batch as alone.
    """
    one = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    out = one + matrix / _DEGREE
    for n in range(_DEGREE - 1, 0, -1):
        out = one + matrix @ out / n
    return out


def _mean_growth(rate: Tensor) -> Tensor:
    """`int_0^1 exp(rate u) du = (e^rate - 1) / rate`."""
    moving = rate != 0
    safe = torch.where(moving, rate, 1.0)
    return torch.where(moving, torch.expm1(safe) / safe, 1.0)


def compose(first: Coefs, then: Coefs) -> Coefs:
    """Chapman-Kolmogorov: the transition `first` followed by `then`."""
    (phi1, gain1, cov1), (phi2, gain2, cov2) = first, then
    return phi2 @ phi1, phi2 @ gain1 + gain2, phi2 @ cov1 @ phi2.mT + cov2


def stationary_covariance(drift: Tensor, noise: Tensor) -> Tensor:
    """The solution of `F S + S F^T + Q = 0`, `(..., K, K)`.

    Raises:
        ArgumentError: `F` is not Hurwitz: some mode does not decay, so there is no stationary law.
    """
    slowest = float(torch.linalg.eigvals(drift).real.max())
    if not slowest < 0:
        raise ArgumentError("F", f"a largest real part of {slowest:.3g}", "a Hurwitz drift", "Without decay there is no stationary law.")
    k = drift.shape[-1]
    # one block of either may stand beside many of the other
    drift, noise = drift + 0 * noise, noise + 0 * drift
    eye = torch.eye(k, dtype=drift.dtype, device=drift.device)
    lyapunov = torch.einsum("...ik,jl->...ijkl", drift, eye) + torch.einsum("ik,...jl->...ijkl", eye, drift)
    flat = torch.linalg.solve(lyapunov.reshape(*drift.shape[:-2], k * k, k * k), -noise.reshape(*noise.shape[:-2], k * k, 1))
    out = flat.reshape(noise.shape)
    return (out + out.mT) / 2
