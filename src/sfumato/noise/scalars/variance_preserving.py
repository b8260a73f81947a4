r"""Variance-preserving processes, `alpha^2 + sigma^2 = 1`, and their sub-VP relative.

Source: Song et al. 2021 (arXiv 2011.13456), eqs. 32-34 and appendix C; cosine: Nichol & Dhariwal 2021 (arXiv 2102.09672), eq. 17.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from sfumato.errors import ArgumentError
from sfumato.noise.process import Time, as_time
from sfumato.noise.scalars.scalar import ScalarProcess


def _log_expm1(b: Tensor) -> Tensor:
    return b + torch.log(-torch.expm1(-b))


@dataclass(frozen=True)
class VariancePreserving(ScalarProcess):
    """Linear betas: `beta(t) = beta_min + (beta_max - beta_min) t`, `B(t)` its integral, `alpha = exp(-B/2)`, `sigma^2 = 1 - exp(-B)`.

    Example:
        >>> from sfumato.noise import VariancePreserving
        >>> process = VariancePreserving()
        >>> t = process.time_of_ratio(1.0)  # when noise and data are equally strong
        >>> print(f"{float(t):.3f} {float(process.alpha(t)):.3f} {float(process.sigma(t)):.3f}")
        0.259 0.707 0.707
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    kind: ClassVar[str] = "variance-preserving"

    def __post_init__(self) -> None:
        if not 0 < self.beta_min <= self.beta_max < math.inf:
            raise ArgumentError("beta_min, beta_max", (self.beta_min, self.beta_max), "0 < beta_min <= beta_max")

    def _beta(self, t: Tensor) -> Tensor:
        return self.beta_min + (self.beta_max - self.beta_min) * t

    def _integral(self, t: Tensor) -> Tensor:
        return t * (self.beta_min + (self.beta_max - self.beta_min) * t / 2)

    def _inverse_integral(self, b: Tensor) -> Tensor:
        slope = self.beta_max - self.beta_min
        return 2 * b / (self.beta_min + torch.sqrt(self.beta_min**2 + 2 * slope * b))

    def alpha(self, t: Time) -> Tensor:
        return torch.exp(self._integral(as_time(t)) * -0.5)

    def sigma(self, t: Time) -> Tensor:
        return torch.sqrt(-torch.expm1(-self._integral(as_time(t))))

    def levels(self, t: Time) -> tuple[Tensor, Tensor]:
        b = self._integral(as_time(t))
        return torch.exp(b * -0.5), torch.sqrt(-torch.expm1(-b))

    def half_log_snr(self, t: Time) -> Tensor:
        return -0.5 * _log_expm1(self._integral(as_time(t)))

    def time(self, half_log_snr: Time) -> Tensor:
        return self._inverse_integral(softplus(-2 * torch.as_tensor(half_log_snr, dtype=torch.float64), threshold=700))

    def drift(self, t: Time) -> Tensor:
        return -self._beta(as_time(t)) / 2

    def diffusion_squared(self, t: Time) -> Tensor:
        return self._beta(as_time(t))


@dataclass(frozen=True)
class SubVariancePreserving(VariancePreserving):
    """`alpha = exp(-B/2)` and the smaller noise `sigma = 1 - exp(-B)`; `k = 2 sinh(B/2)`, `g^2 = beta (1 - exp(-2B))`."""

    kind: ClassVar[str] = "sub-variance-preserving"

    def sigma(self, t: Time) -> Tensor:
        return -torch.expm1(-self._integral(as_time(t)))

    levels = ScalarProcess.levels

    def half_log_snr(self, t: Time) -> Tensor:
        b = self._integral(as_time(t))
        return -b / 2 - torch.log(-torch.expm1(-b))

    def time(self, half_log_snr: Time) -> Tensor:
        k = torch.exp(-torch.as_tensor(half_log_snr, dtype=torch.float64))
        return self._inverse_integral(2 * torch.asinh(k / 2))

    def diffusion_squared(self, t: Time) -> Tensor:
        t = as_time(t)
        return -self._beta(t) * torch.expm1(-2 * self._integral(t))


@dataclass(frozen=True)
class Cosine(ScalarProcess):
    """`alpha = cos(u) / cos(u_0)` with `u = (pi/2) (t + s)/(1 + s)` and `u_0 = u(t=0)`; `alpha` is exactly 0 at `t = 1`."""

    s: float = 0.008
    kind: ClassVar[str] = "cosine"

    def __post_init__(self) -> None:
        if not 0 < self.s < 1:
            raise ArgumentError("s", self.s, "an offset in (0, 1)")

    @property
    def _u0(self) -> float:
        return math.pi / 2 * self.s / (1 + self.s)

    def _angles(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`u - u_0` and `pi/2 - u`, each exact where it vanishes."""
        rate = math.pi / 2 / (1 + self.s)
        return rate * t, rate * (1 - t)

    def alpha(self, t: Time) -> Tensor:
        _, left = self._angles(as_time(t))
        return torch.sin(left) / math.cos(self._u0)

    def sigma(self, t: Time) -> Tensor:
        # cos^2(u_0) - cos^2(u) = sin(u - u_0) sin(u + u_0)
        done, _ = self._angles(as_time(t))
        return torch.sqrt(torch.sin(done) * torch.sin(done + 2 * self._u0)) / math.cos(self._u0)

    def half_log_snr(self, t: Time) -> Tensor:
        return torch.log(self.alpha(t)) - torch.log(self.sigma(t))

    def time(self, half_log_snr: Time) -> Tensor:
        lam = torch.as_tensor(half_log_snr, dtype=torch.float64)
        sin0, cos0 = math.sin(self._u0), math.cos(self._u0)
        cos_u = torch.sqrt(torch.sigmoid(2 * lam)) * cos0
        variance = torch.sigmoid(-2 * lam) * cos0**2
        sin_u = torch.sqrt(sin0**2 + variance)
        # sin(u - u_0) = (sin^2 u - sin^2 u_0) / sin(u + u_0), without the difference of near-equals
        sine = variance / (sin_u * cos0 + cos_u * sin0)
        rate = math.pi / 2 / (1 + self.s)
        # from the nearer end, so that both are reached exactly
        return torch.where(lam < 0, 1 - torch.atan2(cos_u, sin_u) / rate, torch.atan2(sine, cos_u * cos0 + sin_u * sin0) / rate)

    def alpha_rate(self, t: Time) -> Tensor:
        _, left = self._angles(as_time(t))
        return -math.pi / 2 / (1 + self.s) * torch.cos(left) / math.cos(self._u0)

    def sigma_rate(self, t: Time) -> Tensor:
        return -self.alpha(t) * self.alpha_rate(t) / self.sigma(t)

    def drift(self, t: Time) -> Tensor:
        _, left = self._angles(as_time(t))
        return -math.pi / 2 / (1 + self.s) / torch.tan(left)

    def diffusion_squared(self, t: Time) -> Tensor:
        return -2 * self.drift(t)
