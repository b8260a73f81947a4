r"""The Gaussian law, and its probability flow in closed form.

In the eigenbasis of the covariance every mode with variance `l` is alone: the posterior mean has the gain
`alpha l / (alpha^2 l + sigma^2)`, and the probability flow from time `t` to time `s` the gain

    sqrt((alpha_s^2 l + sigma_s^2) / (alpha_t^2 l + sigma_t^2)).

Source: Wang & Vastola 2024 (arXiv 2412.09726), section 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.exact.laws.conditioning import condition, noise_covariance, observation
from sfumato.exact.laws.law import LOG_TWO_PI, Law, event_of, vector
from sfumato.exact.spectral.covariance import SpectralCovariance
from sfumato.exact.spectral.flow import AffineFlow
from sfumato.noise import ScalarProcess, Time
from sfumato.seeds import Noise


class Gaussian(Law):
    """`N(mean, covariance)`; computes in the covariance's dtype.

    Arguments:
        mean: `dim` numbers, flat or shaped as the event.
        covariance: may be singular: then the law has no density, and everything else works.
        event_shape: default: the flat `(dim,)`.
    """

    def __init__(self, mean: Tensor, covariance: SpectralCovariance, event_shape: Sequence[int] | None = None) -> None:
        self.covariance = covariance
        self.event_shape = event_of(covariance.dim, event_shape)
        self.mean = vector(mean, covariance.dim, "mean").to(covariance.device, covariance.dtype)

    def flow(self, process: ScalarProcess, t: Time, s: Time) -> AffineFlow:
        """The probability flow's map from `x_t` to `x_s`, exact, in both directions.

        Arguments:
            process: the process whose flow it is.
            t, s: where it starts and ends: scalars, or one per sample.

        Raises:
            ArgumentError: from `sigma_t = 0` towards noise along a direction without variance, where the flow is no map.
        """
        (alpha, sigma), (alpha_s, sigma_s) = [(process.alpha(u).to(self.device), process.sigma(u).to(self.device)) for u in (t, s)]
        spectrum = self.covariance.spectrum
        source, target = [(a**2)[..., None] * spectrum + (b**2)[..., None] for a, b in ((alpha, sigma), (alpha_s, sigma_s))]
        if bool(((source == 0) & (target > 0)).any()):
            raise ArgumentError("t", t, "a noisy time to flow from", "Directions without variance cannot leave the clean end.")
        # 0/0 is the flow from the clean end to itself
        gains = torch.sqrt(torch.where(source == target, 1.0, target / source))
        shifts = [a.to(self.dtype)[..., None] * self.mean for a in (alpha, alpha_s)]
        return AffineFlow(self.covariance.basis, gains, *shifts)

    def given(self, A: Tensor, y: Tensor, noise: float | Tensor) -> Gaussian:
        A, y = observation(A, y, self.dim, self.device)
        mean, covariance, _ = condition(self.mean, self.covariance, A, y, noise_covariance(noise, len(y), self.device))
        return Gaussian(mean, covariance.to(self.dtype), self.event_shape)

    def to(self, dtype: torch.dtype, device: torch.device | str | None = None) -> Gaussian:
        return Gaussian(self.mean.to(dtype), self.covariance.to(dtype, device), self.event_shape)

    def _noised(self, alpha: float, sigma: float) -> Gaussian:
        return Gaussian(alpha * self.mean, self.covariance.map(lambda v: alpha**2 * v + sigma**2), self.event_shape)

    def _sample(self, draws: Noise) -> Tensor:
        return self.mean + self.covariance.sqrt_matmul(draws.draw(0).reshape(len(draws), self.dim))

    def _log_prob(self, x: Tensor) -> Tensor:
        away = x - self.mean
        whitened = self.covariance.solve(away)
        return -0.5 * ((away * whitened).sum(1) + (self.covariance.logdet() + self.dim * LOG_TWO_PI).to(x.dtype))

    def _score(self, x: Tensor) -> Tensor:
        return -self.covariance.solve(x - self.mean)

    def _posterior_mean(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        a, b = alpha[..., None], sigma[..., None]

        def gain(v: Tensor) -> Tensor:
            # a direction without variance stays at the mean, also in the limit sigma -> 0
            return torch.where(v == 0, 0.0, a * v / (a**2 * v + b**2))

        return self.mean + self.covariance.apply(gain, x - a.to(self.dtype) * self.mean)
