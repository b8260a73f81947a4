r"""In which order a network learns the directions of its data: the variance of what it generates, direction by direction, as it trains.

For linear denoisers all is known (`sfumato.exact.learning.linear_learning`): the step at which a direction's variance is half-way (in
logarithms) to the data's is inversely proportional to it. For a network the variances are those of samples, along the data's principal
components. Source: Wang & Pehlevan 2025 (arXiv 2503.03206).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import ShapeError
from sfumato.exact import Gaussian
from sfumato.exact.learning.learning_times import learning_times
from sfumato.explain.explanation import Explanation
from sfumato.metrics import Rate, fit_rate
from sfumato.sample import Heun, Sampler, karras

_SMOOTH = 2.0
"""Records over which sampled variances are smoothed."""
_LEAST = 1e-6
"""Directions with less than this share of the largest variance are left out: nothing is generated there but rounding and noise."""


def mode_variances(
    denoiser: Denoiser, law: Gaussian, n: int = 256, *, steps: int = 14, seed: int = 0, device: torch.device | str = "cpu"
) -> Float[Tensor, " rank"]:
    """The variances of `n` generated samples along a law's eigenvectors, float64.

    Arguments:
        denoiser: sampled by Heun's method on Karras et al.'s schedule.
        law: usually the Gaussian fitted to the data.
        steps: of the sampler, two evaluations each.
        seed: of the samples; the same at every training step, so that curves are smooth.
        device: where the denoiser computes.
    """
    program = Heun().compile(denoiser.process, karras(denoiser.process, steps))
    samples = Sampler(denoiser, program, law.event_shape, device=device).sample(n, seed, chunk=n)
    along = law.covariance.project(samples.flatten(1).to(law.device, law.dtype) - law.mean)
    return along.to(torch.float64).var(0, correction=0)


@dataclass(frozen=True)
class ModeLearning(Explanation):
    """When each principal component of the data was learned, the one of most variance first.

    Arguments:
        steps: the training steps that were looked at.
        targets: the data's variances.
        variances: those of generated samples, one list of components per step.
        learned_at: when a component's log-variance was half-way to its target, in steps; NaN where that is still to come.
        rising, falling: which started a factor of 2 or more under or over their targets.
        twin: `learned_at` of a network whose data are whitened along the same components, if there is one.
    """

    steps: list[int]
    targets: list[float]
    variances: list[list[float]]
    learned_at: list[float]
    rising: list[bool]
    falling: list[bool]
    twin: list[float] | None = None

    def beside(self, whitened: ModeLearning) -> ModeLearning:
        """The same with the steps of a network that learned `whitened_twin` data, NaN for components that those lack.

        Raises:
            ShapeError: it has more components.
        """
        missing = len(self.targets) - len(whitened.targets)
        if missing < 0:
            raise ShapeError("whitened", len(whitened.targets), f"at most {len(self.targets)} components")
        return replace(self, twin=[*whitened.learned_at, *[math.nan] * missing])

    @property
    def order(self) -> float:
        """Spearman's correlation of variance and step over the rising components; NaN for fewer than three."""
        return rank_correlation(*self._seen(self.rising))

    @property
    def rising_rate(self) -> Rate | None:
        """The exponent of the step in the variance, over the rising components; None for fewer than three."""
        return _rate(*self._seen(self.rising))

    @property
    def falling_rate(self) -> Rate | None:
        """The same over the falling components."""
        return _rate(*self._seen(self.falling))

    @property
    def numbers(self) -> dict[str, float]:
        """Exponents and rank correlation; linear theory has -1 and -1."""
        rates = {"rising": self.rising_rate, "falling": self.falling_rate}
        return {
            "rank_correlation": self.order,
            **{f"exponent_{name}": math.nan if rate is None else rate.slope for name, rate in rates.items()},
            **{name: float(len(self._seen(getattr(self, name))[0])) for name in rates},
        }

    @property
    def meaning(self) -> str:
        variances, times = self._seen(self.rising)
        if len(times) < 3:
            return (
                f"Only {len(times)} directions of your data had to gain variance and did within {self.steps[-1]} steps: too few to say in"
                " which order they are learned."
            )
        rate = self.rising_rate
        slope = math.nan if rate is None else rate.slope
        return (
            f"The direction of variance {variances[0]:.3g} was learned after {times[0]:.0f} steps, that of variance {variances[-1]:.3g}"
            f" after {times[-1]:.0f}: the step goes as the variance to the power {slope:.2f} (linear theory: -1)."
        )

    def plot(self, ax: Any) -> None:
        """Steps against variances, the inverse proportion of linear theory through their middle, and the whitened twin."""
        variances, times = self._seen(self.rising)
        ax.loglog(variances, times, "o", color="C0", label="learned (rising)")
        ax.loglog(*self._seen(self.falling), "o", color="C0", fillstyle="none", label="learned (falling)")
        if times:
            middle = math.exp(sum(math.log(v * t) for v, t in zip(variances, times, strict=True)) / len(times))
            ends = [min(variances), max(variances)]
            ax.loglog(ends, [middle / v for v in ends], "-", color="C1", label="linear theory: step ~ 1/variance")
        if self.twin is not None:
            ax.loglog(*self._seen(self.rising, self.twin), "x", color="C2", label="the same directions, whitened")
        ax.set_xlabel("variance of the data along the component")
        ax.set_ylabel("training step at which it is learned")
        ax.legend()

    def _seen(self, kind: Sequence[bool], times: Sequence[float] | None = None) -> tuple[list[float], list[float]]:
        """Variances and steps of the components of a kind that were learned after step 0."""
        rows = zip(self.targets, self.learned_at if times is None else times, kind, strict=True)
        pairs = [(v, t) for v, t, wanted in rows if wanted and t > 0]
        return [v for v, _ in pairs], [t for _, t in pairs]


def mode_learning(steps: Sequence[int], variances: Sequence[Tensor], targets: Float[Tensor, " rank"]) -> ModeLearning:
    """Read the order of learning off generated variances.

    Arguments:
        steps: the training steps that were looked at.
        variances: what `mode_variances` gave at each of them.
        targets: the data's variances along the same components, descending; those that are practically 0 are left out.

    Raises:
        ShapeError, DataError: as `sfumato.exact.learning.learning_times`.
    """
    kept = targets > _LEAST * float(targets.max())
    seen = torch.stack(list(variances))[:, kept].cpu()
    goal = targets[kept].to(torch.float64).cpu()
    found = learning_times(torch.tensor(list(steps), dtype=torch.float64), seen, goal, smooth=_SMOOTH)
    return ModeLearning(list(steps), goal.tolist(), seen.tolist(), found.times.tolist(), found.rising.tolist(), found.falling.tolist())


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's; NaN for fewer than three pairs."""
    from scipy.stats import spearmanr

    return float(spearmanr(x, y).statistic) if len(x) > 2 else math.nan


def _rate(variances: list[float], times: list[float]) -> Rate | None:
    return fit_rate(variances, times) if len(times) > 2 and len(set(variances)) > 1 else None
