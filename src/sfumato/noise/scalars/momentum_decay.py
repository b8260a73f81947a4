r"""A signal that decays like a damped oscillator: diffusion read as descent with momentum.

The mean of gradient descent with momentum on a quadratic solves `s'' + 2 zeta s' + s = 0`, `s(0) = 1`, `s'(0) = 0`, in the clock `B(t)`.
Without oscillation and fastest is `zeta = 1`: `s = exp(-B)(1 + B)`. The noisy data are `s(t) (x_0 + sigma(t) eps)`. Source: Wu et al.
2023 (arXiv 2306.06991), section 3.
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


def damped_decay(clock: Tensor, damping: int | float = 1.0) -> tuple[Tensor, Tensor]:
    """`(s, ds/dB)` of `s'' + 2 zeta s' + s = 0` from `s = 1` at rest; below `zeta = 1` it oscillates through 0.

    Raises:
        ArgumentError: a damping that is not positive.
    """
    if not 0 < damping < math.inf:
        raise ArgumentError("damping", damping, "a positive factor", "1 is critical.")
    square = damping**2 - 1
    omega = math.sqrt(abs(square))
    fading = torch.exp(-damping * clock)
    if square == 0:
        even, odd = fading, fading * clock
    elif square < 0:
        even, odd = fading * torch.cos(omega * clock), fading * torch.sin(omega * clock) / omega
    else:
        # exp(-zeta B) cosh(omega B) by the slow exponential, for each factor alone leaves the range of float64
        slow, gone = torch.exp(-clock / (damping + omega)), torch.expm1(-2 * omega * clock)
        even, odd = slow * (2 + gone) / 2, -slow * gone / (2 * omega)
    return even + damping * odd, -odd


@dataclass(frozen=True)
class MomentumDecay(ScalarProcess):
    """`alpha = s(B(t))`, `sigma = s(B(t)) sigma_max t`, so `k = sigma_max t` as in EDM;
    `B = multiplier (beta_min t + (beta_max - beta_min) t^2 / 2)`.

    Arguments:
        sigma_max: the noise-to-signal ratio at `t = 1`.
        multiplier, beta_min, beta_max: of the clock.
        damping: `zeta` of at least 1 (below, the signal would pass through 0, where no process goes on; see `damped_decay`).
    """

    sigma_max: float = 80.0
    multiplier: float = 2.0
    damping: float = 1.0
    beta_min: float = 0.1
    beta_max: float = 20.0
    kind: ClassVar[str] = "momentum-decay"

    def __post_init__(self) -> None:
        if not 0 < self.sigma_max < math.inf:
            raise ArgumentError("sigma_max", self.sigma_max, "a positive noise level")
        if not (0 < self.beta_min <= self.beta_max < math.inf and 0 < self.multiplier * self.beta_max <= 200):
            raise ArgumentError(
                "multiplier, beta_min, beta_max", (self.multiplier, self.beta_min, self.beta_max), "positive speeds of at most 200"
            )
        if not 1 <= self.damping <= 10:
            raise ArgumentError("damping", self.damping, "a factor in [1, 10]", "Below 1 the signal oscillates through 0.")

    def _clock(self, t: Tensor) -> tuple[Tensor, Tensor]:
        slope = self.beta_max - self.beta_min
        return self.multiplier * t * (self.beta_min + slope * t / 2), self.multiplier * (self.beta_min + slope * t)

    def alpha(self, t: Time) -> Tensor:
        return damped_decay(self._clock(as_time(t))[0], self.damping)[0]

    def sigma(self, t: Time) -> Tensor:
        return self.alpha(t) * self.sigma_max * as_time(t)

    def half_log_snr(self, t: Time) -> Tensor:
        return -torch.log(self.sigma_max * as_time(t))

    def time(self, half_log_snr: Time) -> Tensor:
        return torch.exp(-torch.as_tensor(half_log_snr, dtype=torch.float64)) / self.sigma_max

    def drift(self, t: Time) -> Tensor:
        clock, speed = self._clock(as_time(t))
        scale, rate = damped_decay(clock, self.damping)
        return rate / scale * speed

    def sigma_rate(self, t: Time) -> Tensor:
        t = as_time(t)
        return self.sigma_max * (self.alpha(t) + t * self.alpha_rate(t))

    def diffusion_squared(self, t: Time) -> Tensor:
        return 2 * self.alpha(t) ** 2 * self.sigma_max**2 * as_time(t)
