r"""Noise and blur that differ by frequency.

Sources: Hoogeboom & Salimans 2023 (arXiv 2209.05557), eqs. 10-16 (blurring); Rissanen et al. 2023 (arXiv 2206.13397), eqs. 2-5 (heat);
Lim et al. 2023 (arXiv 2302.07400), section 3 (trace-class noise).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.noise.linear_family.basis import cosines, laplacian
from sfumato.noise.linear_family.clock import Clock, ClockSDE
from sfumato.noise.linear_family.marginal_table import TableSDE
from sfumato.noise.linear_family.preset import preset
from sfumato.noise.linear_family.van_loan import Coefs


def _columns(values: Tensor) -> Tensor:
    """`(..., n)` to blocks `(..., n, 1, 1)`."""
    return values[..., None, None]


@preset
def blurring(shape: Sequence[int], blur: float = 4.0, offset: float = 0.008, channels: bool = False) -> TableSDE:
    """Blur and noise together, by cosine: `A_k = alpha exp(-lam_k kappa(t))`, `S = 1 - alpha^2`; `kappa = blur^2/2 sin^4(pi t / 2)`.

    `alpha = cos(u)/cos(u_0)` is the cosine schedule, stopped at `1e-3` of the end, where the drift is finite; `blur` is in pixels.
    """
    if not 0 <= blur < math.inf:
        raise ArgumentError("blur", blur, "a width of at least 0 pixels")
    basis = cosines(shape, channels=channels)
    rates, first = laplacian(basis), math.pi / 2 * offset / (1 + offset)

    def table(t: Tensor) -> Coefs:
        t = t[..., None]
        alpha = torch.cos(first + (math.pi / 2 * (1 - 1e-3) - first) * t) / math.cos(first)
        signal = alpha * torch.exp(-rates * blur**2 / 2 * torch.sin(math.pi / 2 * t) ** 4)
        return _columns(signal), _columns(signal)[..., :0], _columns((1 - alpha**2).expand_as(signal))

    return TableSDE(table, basis=basis)


@preset
def heat(shape: Sequence[int], blur: float = 8.0, level: float = 0.01, channels: bool = False) -> ClockSDE:
    """Heat dissipation: `A_k = exp(-lam_k blur^2 t^2 / 2)` and the same small noise `level` at all times.

    As an SDE: the start has the noise `level`, `F = -lam_k`, and `Q = 2 lam_k level^2` makes up for what decays of it. The prior is around
    blurred data, so there is none for the data themselves: `prior` stands for blank ones.
    """
    if not (0 < blur < math.inf and 0 < level < math.inf):
        raise ArgumentError("blur, level", (blur, level), "positive numbers")
    basis = cosines(shape, channels=channels)
    rates = _columns(laplacian(basis))
    start = torch.full((1, 1, 1), level**2, dtype=torch.float64)
    return ClockSDE(-rates, 2 * level**2 * rates, Clock(0.0, blur**2), basis=basis, start=start)


@preset
def function_space(shape: Sequence[int], decay: float = 2.0, first: float = 0.1, last: float = 20.0) -> ClockSDE:
    """Variance preserving with trace-class noise: `F = -beta/2`, `Q = beta C`, `C_k = (1 + lam_k)^{-decay}` on a box of unit length;
    prior `N(0, C)`."""
    if not 0 < decay < math.inf:
        raise ArgumentError("decay", decay, "a positive power")
    basis = cosines(shape)
    # lam is in units of the grid; on a box of unit length frequency k is (pi k)^2
    spectrum = _columns((1 + laplacian(basis) * max(shape) ** 2) ** -float(decay))
    prior = torch.zeros(1, 1, 0, dtype=torch.float64), spectrum
    return ClockSDE(torch.full((1, 1, 1), -0.5, dtype=torch.float64), spectrum, Clock(first, last), basis=basis, prior=prior)
