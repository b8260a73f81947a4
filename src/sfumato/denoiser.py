r"""The Denoiser contract: what we believe about clean data when we see noisy data.

The one answer is the posterior mean `D(x, t) = E[x_0 | x_t = x]`. Given the process (`x_t = alpha x_0 + sigma eps`), the other
predictions of the literature are views of it, linear in `D` and `x`:

    noise      eps = (x - alpha D) / sigma
    score      grad log p_t(x) = (alpha D - x) / sigma^2 = -eps / sigma
    energy     -grad log p_t(x)
    velocity   dx/dt of the probability flow = alpha' D + sigma' eps
    v          alpha eps - sigma D          (Salimans & Ho 2022, arXiv 2202.00512)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, get_args

import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.noise.process import Time, over_events
from sfumato.noise.scalars.scalar import ScalarProcess

View = Literal["data", "noise", "score", "energy", "velocity", "v"]
"""What a network predicts, or what one asks of a denoiser."""


def _weights(view: View, process: ScalarProcess, t: Time) -> tuple[Tensor, Tensor]:
    """`(a, b)` with `view = a D + b x`, float64; where `sigma = 0` the views that divide by it are infinite."""
    alpha, sigma = process.alpha(t), process.sigma(t)
    if view == "data":
        return torch.ones_like(alpha), torch.zeros_like(alpha)
    if view == "noise":
        return -alpha / sigma, 1 / sigma
    if view == "score":
        return alpha / sigma**2, -1 / sigma**2
    if view == "energy":
        return -alpha / sigma**2, 1 / sigma**2
    if view == "v":
        return -(alpha**2 / sigma + sigma), alpha / sigma
    if view == "velocity":
        d_alpha, d_sigma = process.alpha_rate(t), process.sigma_rate(t)
        return d_alpha - d_sigma * alpha / sigma, d_sigma / sigma
    raise ArgumentError("view", repr(view), f"one of {', '.join(get_args(View))}")


def to_data(prediction: Tensor, view: View, x: Tensor, t: Time, process: ScalarProcess) -> Tensor:
    """The clean-data prediction `D` that a prediction of the given view stands for.

    Arguments:
        prediction, x: `(batch, *event)`.
        view: what `prediction` is.
        t: scalar or `(batch,)`.

    Raises:
        ArgumentError: an unknown view, or a time at which the view does not determine `D`: for noise, score and energy where
            `alpha = 0`; for all but data and v where `sigma = 0`.
    """
    if view == "data":
        return prediction
    alpha, sigma = process.alpha(t), process.sigma(t)
    if view == "v":
        # D = (alpha x - sigma v) / (alpha^2 + sigma^2), finite at both ends
        norm = alpha**2 + sigma**2
        return over_events(alpha / norm, x) * x - over_events(sigma / norm, x) * prediction
    a, b = _weights(view, process, t)
    if not bool((torch.isfinite(1 / a) & torch.isfinite(b / a)).all()):
        raise ArgumentError("t", t, f"times at which a prediction of {view} determines the clean data")
    return over_events(1 / a, x) * prediction - over_events(b / a, x) * x


def from_data(data: Tensor, view: View, x: Tensor, t: Time, process: ScalarProcess) -> Tensor:
    """The given view of the clean-data prediction `data`: the inverse of `to_data`.

    Raises:
        ArgumentError: an unknown view, or a time at which the view is infinite (`sigma = 0`).
    """
    if view == "data":
        return data
    a, b = _weights(view, process, t)
    if not bool((torch.isfinite(a) & torch.isfinite(b)).all()):
        raise ArgumentError("t", t, f"times at which the view {view} is finite", "At t = 0 there is no noise to divide by.")
    return over_events(a, x) * data + over_events(b, x) * x


class Denoiser(ABC):
    """`E[x_0 | x_t]` under a process, and its views.

    A denoiser is a function of `(x, t, condition)`; guidance and wrappers are denoisers built of denoisers. What it is conditioned on
    (class labels, observations) is passed through unread as `condition`.

    Example:
        >>> import torch
        >>> from sfumato.exact import Gaussian, SpectralCovariance
        >>> from sfumato.noise import VariancePreserving
        >>> law = Gaussian(torch.zeros(1, dtype=torch.float64), SpectralCovariance.isotropic(1, 1.0))
        >>> denoiser, x = law.denoiser(VariancePreserving()), torch.ones(1, 1, dtype=torch.float64)
        >>> t = float(denoiser.process.time_of_ratio(1.0))
        >>> print(f"{denoiser.denoise(x, t).item():.4f} {denoiser.noise(x, t).item():.4f} {denoiser.score(x, t).item():.4f}")
        0.7071 0.7071 -1.0000
    """

    process: ScalarProcess

    @abstractmethod
    def denoise(self, x: Tensor, t: Time, condition: Tensor | None = None) -> Tensor:
        """The posterior mean `E[x_0 | x_t = x]`, shape `(batch, *event)` as `x`; `t` is a scalar or `(batch,)`."""

    def view(self, view: View, x: Tensor, t: Time, condition: Tensor | None = None) -> Tensor:
        """Any view of the belief, see the module's table."""
        return from_data(self.denoise(x, t, condition), view, x, t, self.process)

    def noise(self, x: Tensor, t: Time, condition: Tensor | None = None) -> Tensor:
        """The predicted noise `(x - alpha D) / sigma`."""
        return self.view("noise", x, t, condition)

    def score(self, x: Tensor, t: Time, condition: Tensor | None = None) -> Tensor:
        """The score `(alpha D - x) / sigma^2`."""
        return self.view("score", x, t, condition)

    def velocity(self, x: Tensor, t: Time, condition: Tensor | None = None) -> Tensor:
        """The probability flow's velocity `dx/dt`."""
        return self.view("velocity", x, t, condition)

    def energy_gradient(self, x: Tensor, t: Time, condition: Tensor | None = None) -> Tensor:
        """The gradient of the energy `-log p_t`, i.e. minus the score."""
        return self.view("energy", x, t, condition)

    def under(self, process: ScalarProcess) -> Denoiser:
        """The same belief, asked in the coordinates of another scalar process.

        Two scalar processes see the same noisy data up to scale when their ratios `k` agree:
        `D'(x, t) = D(x alpha_u / alpha'_t, u)` with `k_u = k'_t`. Above the noisiest level of its own process, where the belief was never
        defined, it is asked at that level, with the noise scaled to it.
        """
        return self if process == self.process else _Under(self, process)


class _Under(Denoiser):
    def __init__(self, inner: Denoiser, process: ScalarProcess) -> None:
        self.inner, self.process = inner, process

    def denoise(self, x: Tensor, t: Time, condition: Tensor | None = None) -> Tensor:
        ours, theirs = self.process, self.inner.process
        u = theirs.time_of_ratio(ours.ratio(t).clamp(max=float(theirs.ratio(1.0))))
        # sigma'/sigma is the scale where alpha vanishes; elsewhere alpha'/alpha is, and both agree
        noisy = ours.alpha(t) < ours.sigma(t)
        scale = torch.where(noisy, theirs.sigma(u) / ours.sigma(t), theirs.alpha(u) / ours.alpha(t))
        return self.inner.denoise(over_events(scale, x) * x, u, condition)
