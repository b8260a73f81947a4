r"""Drift towards a condition: a degraded image, noisy speech.

Sources: Luo et al. 2023 (arXiv 2301.11699), eqs. 3-6; Richter et al. 2023 (arXiv 2208.05830), eqs. 1-9.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.noise.linear_family.clock import Clock, ClockSDE
from sfumato.noise.linear_family.marginal_table import TableSDE
from sfumato.noise.linear_family.preset import preset
from sfumato.noise.linear_family.van_loan import Coefs

_ONE = torch.ones(1, 1, 1, dtype=torch.float64)


@preset
def ir_sde(level: float = 0.5, total: float = 5.0) -> ClockSDE:
    """Towards the degraded image `y`: `dx = theta (y - x) dt + sqrt(2 theta) lambda dw`; `total = int theta`, prior `N(y, lambda^2)`."""
    if not (0 < level < math.inf and 0 < total < math.inf):
        raise ArgumentError("level, total", (level, total), "positive numbers")
    # theta grows from 0, so that the first steps are small
    return ClockSDE(-_ONE, 2 * level**2 * _ONE, Clock(0.0, 2 * total), gain=_ONE, prior=(_ONE, level**2 * _ONE))


@preset
def ouve(stiffness: float = 1.5, sigma_min: float = 0.05, sigma_max: float = 0.5) -> TableSDE:
    """Towards noisy speech `y`, with exploding variance: `F = -g`, `C = g`, `Q = 2 l a^2 (b/a)^{2t}`, `l = log(b/a)`; prior `N(y, S_1)`."""
    if not (0 < sigma_min < sigma_max < math.inf and 0 < stiffness < math.inf):
        raise ArgumentError("stiffness, sigma_min, sigma_max", (stiffness, sigma_min, sigma_max), "positive numbers, sigma_min < sigma_max")
    log = math.log(sigma_max / sigma_min)

    def table(t: Tensor) -> Coefs:
        kept, grown = torch.exp(-stiffness * t), torch.exp(-2 * stiffness * t) * torch.expm1(2 * (log + stiffness) * t)
        variance = sigma_min**2 * log / (stiffness + log) * grown
        return kept[..., None, None, None], -torch.expm1(-stiffness * t)[..., None, None, None], variance[..., None, None, None]

    return TableSDE(table, conditions=1, prior=(_ONE, table(torch.ones((), dtype=torch.float64))[2]))
