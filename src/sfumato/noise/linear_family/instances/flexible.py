r"""Flexible diffusion: a metric `R` and a symplectic form `W` that leave `N(0, I)` stationary.

    dx = -beta/2 (R + W) x dt + sqrt(beta R) dw,        x_t | x_0 ~ N(P x_0, I - P P^T),   P = exp(-B (R + W)/2).

Source: Du et al. 2023 (arXiv 2206.10365), with constant `R` and `W`, for which transitions are Gaussian.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sfumato.errors import ArgumentError, ShapeError
from sfumato.noise.linear_family.basis import DENSE_LIMIT, cosines, dense
from sfumato.noise.linear_family.clock import Clock, ClockSDE
from sfumato.noise.linear_family.preset import preset


@preset
def flexible(metric: Tensor, rotation: Tensor, shape: Sequence[int] | None = None, first: float = 0.1, last: float = 20.0) -> ClockSDE:
    """The dense member: `R` and `W` act on all numbers of an event.

    Arguments:
        metric, rotation: `R = R^T >= 0` and `W = -W^T`, `(d, d)` with `d <= 256`; `R = I` turns the noise, `W = 0` shapes it.
        shape: the event shape; default `(d,)`.
        first, last: the clock's speed at `t = 0` and 1.

    Raises:
        ShapeError, ArgumentError: matrices that do not fit, more than 256 numbers, or `W` not antisymmetric.
    """
    d = len(metric)
    if metric.shape != (d, d) or rotation.shape != (d, d) or d > DENSE_LIMIT:
        raise ShapeError("metric, rotation", (tuple(metric.shape), tuple(rotation.shape)), f"two (d, d) matrices, d <= {DENSE_LIMIT}")
    skew = float((rotation + rotation.mT).detach().abs().max())
    if skew > 1e-10:
        raise ArgumentError("rotation", f"|W + W^T| up to {skew:.3g}", "an antisymmetric matrix", "Use q - q.T.")
    prior = torch.zeros(1, d, 0, dtype=torch.float64), torch.eye(d, dtype=torch.float64)[None]
    basis = dense((d,) if shape is None else shape)
    return ClockSDE(-(metric + rotation)[None] / 2, metric[None], Clock(first, last), channels=1, basis=basis, prior=prior)


@preset
def flexible_spectrum(spectrum: Tensor, first: float = 0.1, last: float = 20.0) -> ClockSDE:
    """The member with `W = 0` and `R` diagonal in cosines: frequency `k` forgets at the rate `R_k`; prior `N(0, I)`.

    Arguments:
        spectrum: `R_k >= 0`, of the event shape.
        first, last: the clock's speed at `t = 0` and 1.
    """
    rates = spectrum.flatten()[:, None, None]
    prior = torch.ones(1, 1, 1, dtype=torch.float64)
    return ClockSDE(-rates / 2, rates, Clock(first, last), basis=cosines(spectrum.shape), prior=(prior[..., :0], prior))
