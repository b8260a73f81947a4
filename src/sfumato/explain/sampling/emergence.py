r"""When each feature of a sample emerges: outline first, details later.

Along the probability flow of a Gaussian law the denoiser's answer has along an eigenvector `u` of variance `l`, relative to its final
value, the coefficient

    R(k) = sqrt(l) / sqrt(l + k^2),        k = sigma / alpha,

which rises through `c` at `k = sqrt(l (1/c^2 - 1))`; for `c = 1/sqrt 2` at **`k = sqrt(l)`**, half log-SNR `-log(l) / 2`. For any model
`R` is measured as the slope of the regression, over an ensemble of starts, of `u . D(x_t)` on `u . D(x_end)`, and a feature emerges at
its last rise through `c`. (Ratios of standard deviations would count what a network says at random as signal.)
Source: Wang & Vastola 2023 (arXiv 2303.02490), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.exact import Gaussian
from sfumato.explain.explanation import Explanation
from sfumato.explain.sampling.trajectory import answers
from sfumato.sample import Trajectory, reference

HALF = 1 / math.sqrt(2)
"""The level at which a feature of a Gaussian has half its final variance."""

_LEAST = 0.1


@dataclass(frozen=True)
class Emergence(Explanation):
    """When the data's components emerge, the component of most variance first.

    Arguments:
        ratios: the noise-to-signal ratios along the trajectory, falling.
        variances: of the components, in the law.
        curves: the measured slopes, one list over ratios for each component.
        emerged: the ratio at which each component's slope last rises through `level`; NaN if it never does.
        predicted: the Gaussian's, `sqrt(l (1/level^2 - 1))`.
        level: the slope that counts as emerged.
    """

    ratios: list[float]
    variances: list[float]
    curves: list[list[float]]
    emerged: list[float]
    predicted: list[float]
    level: float

    @property
    def _seen(self) -> list[tuple[float, float]]:
        """Measured and predicted ratios of the components that emerge on the way."""
        return [(k, p) for k, p in zip(self.emerged, self.predicted, strict=True) if k > 0]

    @property
    def rank_correlation(self) -> float:
        """Spearman's correlation of measured and predicted ratios; NaN for fewer than three components."""
        from scipy.stats import spearmanr

        seen = self._seen
        return float(spearmanr(*zip(*seen, strict=True)).statistic) if len(seen) > 2 else math.nan

    @property
    def slope(self) -> float:
        """The slope of `log k_measured` on `log k_predicted`: 1 for a Gaussian, near 0 where all features appear at once."""
        if len(self._seen) < 3:
            return math.nan
        measured, predicted = torch.tensor(self._seen, dtype=torch.float64).log().T
        away = predicted - predicted.mean()
        return float((away * measured).sum() / away.square().sum())

    @property
    def numbers(self) -> dict[str, float]:
        """How well the order and the pace of emergence follow the variances."""
        first, last = (max(s), min(s)) if (s := [k for k, _ in self._seen]) else (math.nan, math.nan)
        return {
            "rank_correlation": self.rank_correlation,
            "slope": self.slope,
            "components": float(len(self.variances)),
            "first_emerges_at": first,
            "last_emerges_at": last,
        }

    @property
    def meaning(self) -> str:
        """In which order features emerge."""
        n = self.numbers
        return (
            f"Of {len(self.variances)} components the first emerges at noise-to-signal ratio {n['first_emerges_at']:.3g}, the last at"
            f" {n['last_emerges_at']:.3g}; their order follows their variance with rank correlation {self.rank_correlation:.2f} and"
            f" log-log slope {self.slope:.2f} (a Gaussian has 1; all at once, as in a model that picks one memorised sample, is near 0)."
        )

    def plot(self, ax: Any) -> None:
        """Measured against predicted ratios of emergence, and where one level for all components would put them."""
        measured, predicted = zip(*self._seen, strict=True) if self._seen else ((), ())
        ax.loglog(predicted, measured, "o", color="C0", label="model")
        if self._seen:
            ends = [min(predicted), max(predicted)]
            middle = math.exp(sum(map(math.log, measured)) / len(measured))
            ax.loglog(ends, ends, "-", color="C1", label="Gaussian: the square root of the variance")
            ax.loglog(ends, [middle, middle], ":", color="C2", label="all at once")
        ax.set_xlabel("standard deviation of the component (predicted ratio)")
        ax.set_ylabel("noise-to-signal ratio at which it emerges")
        ax.legend()


@dataclass(frozen=True)
class ConditionalEmergence(Explanation):
    """Emergence under each of several conditions, by their names."""

    parts: dict[str, Emergence]

    @property
    def numbers(self) -> dict[str, float]:
        """Rank correlation, slope and where the first component emerges, for every condition."""
        keys = ("rank_correlation", "slope", "first_emerges_at")
        return {f"{name}: {key}": part.numbers[key] for name, part in self.parts.items() for key in keys}

    @property
    def meaning(self) -> str:
        """The conditions under which features emerge first and last."""
        first = {name: part.numbers["first_emerges_at"] for name, part in self.parts.items()}
        order = sorted(first, key=lambda name: -math.inf if math.isnan(first[name]) else first[name])
        low, high = order[0], order[-1]
        return (
            f"Of {len(order)} conditions the first feature emerges earliest under {high}, at noise-to-signal ratio {first[high]:.3g}, and"
            f" latest under {low}, at {first[low]:.3g}."
        )

    def plot(self, ax: Any) -> None:
        """The first component's curve under every condition, and the Gaussian's."""
        for name, part in self.parts.items():
            noisy = [(k, r) for k, r in zip(part.ratios, part.curves[0], strict=True) if 0 < k < math.inf]
            ax.semilogx(*zip(*noisy, strict=True), label=name)
        part = next(iter(self.parts.values()))
        ratios = [k for k in part.ratios if 0 < k < math.inf]
        ax.semilogx(ratios, [math.sqrt(v / (v + k * k)) for k in ratios for v in part.variances[:1]], "k--", label="Gaussian")
        ax.set_xlabel("noise-to-signal ratio")
        ax.set_ylabel("leading component, relative to its end")
        ax.legend()


def emergence(
    denoiser: Denoiser,
    trajectory: Trajectory,
    law: Gaussian,
    *,
    components: int | None = None,
    level: float = HALF,
    condition: Tensor | None = None,
) -> Emergence:
    """When the components of a law emerge in a model's answers along an ensemble of its trajectories.

    Arguments:
        denoiser: the model.
        trajectory: its probability flow from at least three starts, e.g. `sample.reference` on a few hundred draws of the prior.
        law: the Gaussian whose eigenvectors are the components and whose variances predict; e.g. `fit_gaussian` of the data.
        components: how many, in order of falling variance; by default all with at least a tenth of the mean variance.
        level: the slope that counts as emerged, in (0, 1).
        condition: as the denoiser takes it, one row per trajectory.

    Raises:
        ArgumentError: fewer than three trajectories, a level outside (0, 1), or a number of components that the law does not have.
    """
    batch = len(trajectory.end)
    if batch < 3 or not 0 < level < 1:
        raise ArgumentError("trajectory, level", (batch, level), "at least three trajectories and a level in (0, 1)")
    variances, order = law.covariance.eigenvalues.sort(descending=True)
    mean = float(law.covariance.trace()) / law.dim
    count = int((variances >= _LEAST * mean).sum()) if components is None else components
    if not 1 <= count <= int((variances > 0).sum()):
        raise ArgumentError("components", count, f"1 to {int((variances > 0).sum())} components that vary", "The law has no more.")
    curves = _slopes(denoiser, trajectory, law, order[:count], condition)
    ratios = trajectory.process.ratio(torch.tensor(trajectory.times, dtype=torch.float64))
    emerged = [_last_rise(ratios, curve, level) for curve in curves]
    predicted = torch.sqrt(variances[:count] * (1 / level**2 - 1))
    return Emergence(ratios.tolist(), variances[:count].tolist(), curves.tolist(), emerged, predicted.tolist(), level)


def emergence_by_condition(
    denoiser: Denoiser,
    starts: Float[Tensor, "batch *event"],
    times: tuple[float, ...],
    law: Gaussian,
    conditions: Mapping[str, Tensor | None],
    *,
    components: int | None = None,
) -> ConditionalEmergence:
    """Emergence along the flow under every condition, from the same starts.

    Arguments:
        denoiser: the conditional, or guided, model.
        starts: states at the first of the times.
        times: e.g. `reference_times(denoiser.process, 60)`.
        law: see `emergence`.
        conditions: by name, what one sample is conditioned on (a label `()`, an embedding), or None.
        components: see `emergence`.

    Raises:
        ArgumentError: no conditions, or what `emergence` refuses.
    """
    if not conditions:
        raise ArgumentError("conditions", {}, "at least one condition")
    parts = {}
    for name, one in conditions.items():
        given = None if one is None else one.expand(len(starts), *one.shape)

        def said(x: Tensor, t: float, given: Tensor | None = given) -> Tensor:
            return denoiser.denoise(x, t, given)

        path = reference(said, starts, denoiser.process, law, times)
        parts[name] = emergence(denoiser, path, law, components=components, condition=given)
    return ConditionalEmergence(parts)


def _slopes(denoiser: Denoiser, path: Trajectory, law: Gaussian, order: Tensor, condition: Tensor | None) -> Float[Tensor, "modes nodes"]:
    """The slopes of the regression of every node's answer on the last one's, float64."""
    said = [d.flatten(1).to(law.dtype) for d in answers(denoiser, path, condition)]
    c = torch.stack([law.covariance.project(d)[:, order].to(torch.float64) for d in said])
    c = c - c.mean(1, keepdim=True)
    return ((c * c[-1]).sum(1) / c[-1].square().sum(0)).T


def _last_rise(ratios: Tensor, curve: Tensor, level: float) -> float:
    """The ratio of the last rise through the level; a rise in the step to zero noise counts as none.

    Between nodes `log(1 / R^2 - 1)` is interpolated over the log-ratio, in which a Gaussian's curve is a straight line; where `R` is not
    within (0, 1) it is `R` itself.
    """
    rises = torch.nonzero((curve[:-1] < level) & (curve[1:] >= level))
    if not len(rises):
        return math.nan
    i = int(rises[-1])
    values = torch.stack([curve[i], curve[i + 1], curve.new_tensor(level)])
    if bool(((values > 0) & (values < 1)).all()):
        values = torch.log(values**-2 - 1)
    share = (values[2] - values[0]) / (values[1] - values[0])
    ends = ratios[i : i + 2].log()
    place = float(torch.exp(ends[0] + share * (ends[1] - ends[0])))
    return place if 0 < place < math.inf else math.nan
