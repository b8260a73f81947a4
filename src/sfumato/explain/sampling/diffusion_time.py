r"""How long to diffuse: the likelihood bound of a model, split into what grows with the diffusion time and what shrinks.

With a model's score `s` and a start law `pi` at the time `T`,

    bound(T) = E log p_data - G(T) - KL(q_T || pi),        G(T) = 1/2 int_0^T g^2 E|s - grad log q_t|^2 dt,

and `log p_theta >= bound`. `G` never falls with `T`; the mismatch of a noise prior does, so where the score is not exact there is a best
finite `T*`. A small model of `x_T` in place of the noise (`sfumato.learn.fit_start`) lowers the mismatch and lets `T*` be smaller. Source:
Franzese et al. 2022 (arXiv 2206.05173), section 2 and proposition 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import Gaussian, GaussianMixture, Law, SpectralCovariance
from sfumato.explain.explanation import Explanation

Start = Law | Callable[[float], Law]
"""The law that sampling starts from: one for all times, or one a time."""

_NODES, _TIMES = 801, 120


@dataclass(frozen=True)
class TimeTradeoff(Explanation):
    """The parts of the bound per diffusion time.

    Arguments:
        times: `T`, rising.
        score_error: `G(T)`.
        mismatch: `KL(q_T || pi)`.
        entropy: `-E log p_data`, in nats.
    """

    times: list[float]
    score_error: list[float]
    mismatch: list[float]
    entropy: float

    @property
    def gap(self) -> list[float]:
        """What the bound loses of `E log p_data`, per time."""
        return [a + b for a, b in zip(self.score_error, self.mismatch, strict=True)]

    @property
    def bound(self) -> list[float]:
        """The bound, per time."""
        return [-self.entropy - g for g in self.gap]

    @property
    def best(self) -> float:
        """`T*`, of the times that were asked about."""
        return self.times[self.gap.index(min(self.gap))]

    @property
    def numbers(self) -> dict[str, float]:
        return {"best time": self.best, "gap there": min(self.gap), "gap at the last": self.gap[-1]}

    @property
    def meaning(self) -> str:
        inside = self.times[0] < self.best < self.times[-1]
        why = (
            "longer, errors of the score add up; shorter, the start is wrong"
            if inside
            else "an end of the range: there is no trade-off in it"
        )
        return f"Sampling is best started from T = {self.best:.2g}, where {min(self.gap):.3g} nats are lost: {why}."

    def plot(self, ax: Any) -> None:
        """Both parts and their sum."""
        ax.plot(self.times, self.gap, color="C0", label="lost in all")
        ax.plot(self.times, self.score_error, "--", color="C1", label="errors of the score")
        ax.plot(self.times, self.mismatch, ":", color="C2", label="mismatch of the start")
        ax.set(yscale="log", xlabel="diffusion time", ylabel="nats")
        ax.legend()


def noise_prior(denoiser: Denoiser, law: Law) -> Gaussian:
    """The process's own prior, `N(0, prior_std^2 I)`."""
    ball = SpectralCovariance.isotropic(law.dim, denoiser.process.prior_std**2, dtype=law.dtype)
    return Gaussian(torch.zeros(law.dim, dtype=law.dtype), ball, law.event_shape)


def time_tradeoff(
    denoiser: Denoiser, law: Gaussian | GaussianMixture, times: Sequence[float], start: Start | None = None, *, first: float = 1e-4
) -> TimeTradeoff:
    """The split for a law on the line, by quadrature.

    Arguments:
        denoiser: the model, of the event shape `(1,)`.
        law: of the data, with a density.
        times: rising, in `(first, 1]`.
        start: see `Start`; by default the process's prior.
        first: where the integral over time begins.

    Raises:
        ShapeError: a law of more than one dimension.
        ArgumentError: times that do not rise in `(first, 1]`; a `first` that is not above 0.
    """
    if law.event_shape != (1,):
        raise ShapeError("law", law.event_shape, "events of shape (1,)")
    Ts = [float(t) for t in times]
    if not Ts or not 0 < first < Ts[0] or Ts[-1] > 1 or sorted(set(Ts)) != Ts:
        raise ArgumentError("times, first", (Ts, first), "times that rise in (first, 1], first above 0")
    process, prior = denoiser.process, noise_prior(denoiser, law) if start is None else start
    # equal steps in sqrt(t): the score changes fastest at the clean end
    nodes = torch.linspace(math.sqrt(first), math.sqrt(Ts[-1]), _TIMES, dtype=torch.float64).square()
    grid = torch.unique(torch.cat([nodes[:-1], torch.tensor(Ts, dtype=torch.float64)]))
    exact = law.denoiser(process)

    def density(t: float) -> tuple[Tensor, Tensor, Tensor]:
        at = law.through(process, t)
        mean, std = float(at.mean), _spread(law, process.alpha(t), process.sigma(t))
        x = mean + std * torch.linspace(-1, 1, _NODES, dtype=law.dtype)[:, None]
        log = at.log_prob(x)
        return x, log, log.exp()

    rates = []
    with torch.no_grad():
        for t in grid.tolist():
            x, _, p = density(t)
            off = (denoiser.score(x, t) - exact.score(x, t))[:, 0].square()
            rates.append(0.5 * float(process.diffusion_squared(t)) * float(torch.trapezoid(p * off, x[:, 0])))
    total = torch.cumulative_trapezoid(torch.tensor(rates, dtype=torch.float64), grid)
    errors = dict(zip(grid[1:].tolist(), total.tolist(), strict=True))
    mismatch = []
    for T in Ts:
        x, log, p = density(T)
        own = prior if isinstance(prior, Law) else prior(T)
        mismatch.append(float(torch.trapezoid(p * (log - own.log_prob(x)), x[:, 0])))
    x, log, p = density(0.0)
    return TimeTradeoff(Ts, [errors[T] for T in Ts], mismatch, -float(torch.trapezoid(p * log, x[:, 0])))


def _spread(law: Gaussian | GaussianMixture, alpha: Tensor, sigma: Tensor) -> float:
    """Half of an interval about the mean that holds all but nothing of `x_t`."""
    parts = law.covariances if isinstance(law, GaussianMixture) else [law.covariance]
    centres = law.means if isinstance(law, GaussianMixture) else law.mean[None]
    width = 9 * math.sqrt(float(alpha) ** 2 * max(float(c.trace()) for c in parts) + float(sigma) ** 2)
    return float(alpha) * float((centres - law.mean).abs().max()) + width
