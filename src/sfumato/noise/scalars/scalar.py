r"""Scalar Gaussian processes: `x_t = alpha_t x_0 + sigma_t eps`.

Notation: `k_t = sigma_t / alpha_t` is the noise-to-signal ratio, `lambda_t = -log k_t` half the log-SNR. As an SDE
`dx = F(t) x dt + g(t) dw` with

    F = d log(alpha) / dt,        g^2 = d(sigma^2)/dt - 2 F sigma^2.

Everything is computed in float64 and without differences of near-equal numbers, so that both ends are limits and not epsilons:
`alpha` may be exactly 0 at `t = 1` (then `k = inf`) and `sigma` is exactly 0 at `t = 0` (then `lambda = inf`).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import asdict
from typing import Any, ClassVar

import torch
from torch import Tensor

from sfumato.errors import ArgumentError, ShapeError
from sfumato.noise.process import Affine, Process, Time, as_time, over_events


class ScalarProcess(Process):
    """The family `x_t = alpha_t x_0 + sigma_t eps`; a member is a frozen dataclass that gives the six functions of time below.

    Functions of time take a float or a tensor of times in [0, 1] and return float64 tensors of the same shape.
    """

    kind: ClassVar[str]
    """The name under which the process is written down."""

    @abstractmethod
    def alpha(self, t: Time) -> Tensor:
        """The signal's factor `alpha_t`."""

    @abstractmethod
    def sigma(self, t: Time) -> Tensor:
        """The noise's standard deviation `sigma_t`."""

    @abstractmethod
    def half_log_snr(self, t: Time) -> Tensor:
        """`lambda_t = log(alpha_t / sigma_t)`, falling from `+inf` at `t = 0`."""

    @abstractmethod
    def time(self, half_log_snr: Time) -> Tensor:
        """The time at which half the log-SNR is `half_log_snr`: the inverse of `half_log_snr(t)`."""

    @abstractmethod
    def drift(self, t: Time) -> Tensor:
        """`F(t) = d log(alpha) / dt`."""

    @abstractmethod
    def diffusion_squared(self, t: Time) -> Tensor:
        """`g(t)^2`."""

    def levels(self, t: Time) -> tuple[Tensor, Tensor]:
        """`(alpha_t, sigma_t)`; overridden where both come of one expression, for what asks at every training step."""
        return self.alpha(t), self.sigma(t)

    def alpha_rate(self, t: Time) -> Tensor:
        """`d alpha / dt`; overridden where `F` diverges and the rate does not."""
        return self.drift(t) * self.alpha(t)

    def sigma_rate(self, t: Time) -> Tensor:
        """`d sigma / dt = (g^2 / 2 + F sigma^2) / sigma`; may be infinite at `t = 0`."""
        sigma = self.sigma(t)
        return (self.diffusion_squared(t) / 2 + self.drift(t) * sigma**2) / sigma

    @property
    def prior_std(self) -> float:
        """Standard deviation of the prior `N(0, prior_std^2 I)`: `sigma` at the noisy end."""
        return float(self.sigma(1.0))

    def ratio(self, t: Time) -> Tensor:
        """The noise-to-signal ratio `k_t = sigma_t / alpha_t = exp(-lambda_t)`."""
        return torch.exp(-self.half_log_snr(t))

    def time_of_ratio(self, ratio: Time) -> Tensor:
        """The time at which the noise-to-signal ratio is `ratio`.

        Raises:
            ArgumentError: a ratio that the process never has.
        """
        k = ratio.to(torch.float64) if isinstance(ratio, Tensor) else torch.tensor(ratio, dtype=torch.float64)
        top = float(self.ratio(1.0))
        if not bool(((k >= 0) & (k <= top * (1 + 1e-9))).all()):
            raise ArgumentError("ratio", ratio, f"noise-to-signal ratios in [0, {top:.6g}]")
        return self.time(-torch.log(k)).clamp(0.0, 1.0)

    def sample(self, x0: Tensor, t: Time, noise: Tensor) -> Tensor:
        """`alpha_t x0 + sigma_t noise`, shape `(batch, *event)`.

        Raises:
            ShapeError: `noise` is shaped otherwise than `x0`, or there is not one time per sample.
        """
        if noise.shape != x0.shape:
            raise ShapeError("noise", tuple(noise.shape), f"the shape of x0, {tuple(x0.shape)}")
        alpha, sigma = self.levels(t)
        return over_events(alpha, x0) * x0 + over_events(sigma, x0) * noise

    def prior_sample(self, noise: Tensor) -> Tensor:
        """`prior_std * noise`."""
        return self.prior_std * noise

    def transition(self, s: Time, t: Time) -> Affine:
        """The law of `x_t` given `x_s` for `s <= t`: `phi = alpha_t / alpha_s`, `var = sigma_t^2 (1 - exp(2 (lambda_t - lambda_s)))`.

        Raises:
            ArgumentError: `s > t`.
        """
        s, t = as_time(s, "s"), as_time(t)
        if bool((s > t).any()):
            raise ArgumentError("s, t", (s, t), "s <= t", "The transition runs from clean to noisy.")
        same = s == t
        # where no signal is left at t, x_t is fresh noise, whatever was left at s
        gone = self.alpha(t) == 0
        gap = torch.where(gone, -math.inf, self.half_log_snr(t) - self.half_log_snr(s))
        variance = torch.where(same, 0.0, -(self.sigma(t) ** 2) * torch.expm1(2 * gap))
        phi = torch.where(gone, 0.0, self.alpha(t) / self.alpha(s))
        return Affine(torch.where(same, 1.0, phi), torch.zeros_like(variance), variance)

    def to_dict(self) -> dict[str, Any]:
        """`{"kind": ..., **parameters}`."""
        return {"kind": self.kind, **asdict(self)}  # type: ignore[call-overload]
