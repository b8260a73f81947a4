r"""Processes that only add noise: `alpha = 1`, so `k = sigma`.

Sources: Song et al. 2021 (arXiv 2011.13456), eq. 30; Karras et al. 2022 (arXiv 2206.00364), table 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.noise.process import Time, as_time
from sfumato.noise.scalars.scalar import ScalarProcess


class _Exploding(ScalarProcess):
    """`alpha = 1`, no drift."""

    def alpha(self, t: Time) -> Tensor:
        return torch.ones_like(as_time(t))

    def half_log_snr(self, t: Time) -> Tensor:
        return -torch.log(self.sigma(t))

    def drift(self, t: Time) -> Tensor:
        return torch.zeros_like(as_time(t))


@dataclass(frozen=True)
class VarianceExploding(_Exploding):
    """Geometric noise: `sigma_t^2 = sigma_min^2 ((sigma_max/sigma_min)^(2t) - 1)`, clean at `t = 0`.

    This is the law of `x_t` given `x_0` under `g^2 = d sigma^2/dt` of the geometric `sigma_min (sigma_max/sigma_min)^t`, so `sigma_min` is
    where the geometric growth sets in and not a residual noise level.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    kind: ClassVar[str] = "variance-exploding"

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise ArgumentError("sigma_min, sigma_max", (self.sigma_min, self.sigma_max), "0 < sigma_min < sigma_max")

    @property
    def _rate(self) -> float:
        return 2 * math.log(self.sigma_max / self.sigma_min)

    def sigma(self, t: Time) -> Tensor:
        return self.sigma_min * torch.sqrt(torch.expm1(self._rate * as_time(t)))

    def time(self, half_log_snr: Time) -> Tensor:
        k = torch.exp(-torch.as_tensor(half_log_snr, dtype=torch.float64))
        return torch.log1p((k / self.sigma_min) ** 2) / self._rate

    def diffusion_squared(self, t: Time) -> Tensor:
        return self.sigma_min**2 * self._rate * torch.exp(self._rate * as_time(t))


@dataclass(frozen=True)
class EDM(_Exploding):
    """`sigma` is the clock: `sigma_t = sigma_max t`."""

    sigma_max: float = 80.0
    kind: ClassVar[str] = "edm"

    def __post_init__(self) -> None:
        if not 0 < self.sigma_max < math.inf:
            raise ArgumentError("sigma_max", self.sigma_max, "a positive noise level")

    def sigma(self, t: Time) -> Tensor:
        return self.sigma_max * as_time(t)

    def time(self, half_log_snr: Time) -> Tensor:
        return torch.exp(-torch.as_tensor(half_log_snr, dtype=torch.float64)) / self.sigma_max

    def diffusion_squared(self, t: Time) -> Tensor:
        return 2 * self.sigma_max**2 * as_time(t)
