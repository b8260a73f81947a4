r"""Processes that end in pure noise, `alpha = 0` and `sigma = 1` at `t = 1`: straight lines and circles between data and noise.

Sources: Lipman et al. 2023 (arXiv 2210.02747), Liu et al. 2023 (arXiv 2209.03003); trigonometric: Albergo & Vanden-Eijnden 2023
(arXiv 2209.15571). Both `F` and `g^2` diverge at `t = 1` and are returned as infinities there.
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


@dataclass(frozen=True)
class FlowMatching(ScalarProcess):
    """`alpha = 1 - u`, `sigma = u` (rectified flow), with `u = shift t / (1 + (shift - 1) t)`: a `shift > 1` moves time towards noise."""

    shift: float = 1.0
    kind: ClassVar[str] = "flow-matching"

    def __post_init__(self) -> None:
        if not 0 < self.shift < math.inf:
            raise ArgumentError("shift", self.shift, "a positive factor", "1 leaves time as it is.")

    def _denominator(self, t: Tensor) -> Tensor:
        return 1 + (self.shift - 1) * t

    def alpha(self, t: Time) -> Tensor:
        t = as_time(t)
        return (1 - t) / self._denominator(t)

    def sigma(self, t: Time) -> Tensor:
        t = as_time(t)
        return self.shift * t / self._denominator(t)

    def half_log_snr(self, t: Time) -> Tensor:
        t = as_time(t)
        return torch.log1p(-t) - torch.log(t) - math.log(self.shift)

    def time(self, half_log_snr: Time) -> Tensor:
        return torch.sigmoid(-torch.as_tensor(half_log_snr, dtype=torch.float64) - math.log(self.shift))

    def alpha_rate(self, t: Time) -> Tensor:
        return -self.sigma_rate(t)

    def sigma_rate(self, t: Time) -> Tensor:
        return self.shift / self._denominator(as_time(t)) ** 2

    def drift(self, t: Time) -> Tensor:
        t = as_time(t)
        return -self.shift / (self._denominator(t) * (1 - t))

    def diffusion_squared(self, t: Time) -> Tensor:
        # g^2 = 2 u u' / (1 - u), with u' = shift / denominator^2
        t = as_time(t)
        return 2 * self.shift**2 * t / (self._denominator(t) ** 2 * (1 - t))


@dataclass(frozen=True)
class Trigonometric(ScalarProcess):
    """`alpha = cos(pi t / 2)`, `sigma = sin(pi t / 2)`; `k = tan(pi t / 2)`."""

    kind: ClassVar[str] = "trigonometric"

    def alpha(self, t: Time) -> Tensor:
        return torch.sin(math.pi / 2 * (1 - as_time(t)))

    def sigma(self, t: Time) -> Tensor:
        return torch.sin(math.pi / 2 * as_time(t))

    def half_log_snr(self, t: Time) -> Tensor:
        return torch.log(self.alpha(t)) - torch.log(self.sigma(t))

    def time(self, half_log_snr: Time) -> Tensor:
        return torch.atan(torch.exp(-torch.as_tensor(half_log_snr, dtype=torch.float64))) * 2 / math.pi

    def alpha_rate(self, t: Time) -> Tensor:
        return -math.pi / 2 * self.sigma(t)

    def sigma_rate(self, t: Time) -> Tensor:
        return math.pi / 2 * self.alpha(t)

    def drift(self, t: Time) -> Tensor:
        t = as_time(t)
        return -math.pi / 2 * self.sigma(t) / self.alpha(t)

    def diffusion_squared(self, t: Time) -> Tensor:
        return -2 * self.drift(t)
