r"""What a kick on the way does to the sample: early ones change content, late ones detail.

A kick `d u` of the state at noise level `t`, along an eigenvector `u` of variance `l`, ends under a Gaussian law's probability flow as

    d sqrt((alpha_0^2 l + sigma_0^2) / (alpha_t^2 l + sigma_t^2)),

at the clean end `d sqrt(l / (alpha_t^2 l + sigma_t^2))`: a kick of `a` local standard deviations `sqrt(alpha_t^2 l + sigma_t^2)` always
ends as `a sqrt(l)`, and the absolute gain grows from small to `1 / alpha`. That early kicks matter more is a statement about kicks relative
to the noise of their level, `a sigma` in every direction: they end as `a sqrt(sum_j g_j^2 sigma_t^2)`, which falls with the level.
Source: Wang & Vastola 2023 (arXiv 2303.02490), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.exact import Gaussian
from sfumato.explain.explanation import Explanation
from sfumato.explain.sampling.trajectory import ASIDE
from sfumato.sample import Exponential, Linearisation, Program, Trajectory
from sfumato.seeds import noise
from sfumato.steer.variations import kicked

Labeller = Callable[[Tensor], Tensor]
"""What a sample shows: `(batch, *event)` to one label each, `(batch,)`."""


@dataclass(frozen=True)
class PerturbationResponse(Explanation):
    """How samples answer kicks at several levels of the same trajectories; lists over levels, noisiest first.

    Arguments:
        ratios: the levels' noise-to-signal ratios.
        component: which component was kicked, counted from the one of most variance.
        gains, gains_predicted: the shift of the sample along the component per unit of kick, and the Gaussian's.
        changes, changes_predicted: the mean length of what an isotropic kick of `amplitude` sigma changes, and the Gaussian's root mean
            square.
        relabelled: the share of samples whose label such a kick changes; None without a labeller.
        amplitude: of the isotropic kicks, in units of sigma.
    """

    ratios: list[float]
    component: int
    gains: list[float]
    gains_predicted: list[float]
    changes: list[float]
    changes_predicted: list[float]
    relabelled: list[float] | None
    amplitude: float

    @property
    def numbers(self) -> dict[str, float]:
        """Gains and changes at the noisiest and the cleanest level, and the least and the largest measured over predicted gain."""
        against = [g / p for g, p in zip(self.gains, self.gains_predicted, strict=True)]
        out = {
            "early_change": self.changes[0],
            "late_change": self.changes[-1],
            "early_gain": self.gains[0],
            "late_gain": self.gains[-1],
            "least_gain_over_gaussian": min(against),
            "largest_gain_over_gaussian": max(against),
        }
        labels = {} if self.relabelled is None else {"early_relabelled": self.relabelled[0], "late_relabelled": self.relabelled[-1]}
        return out | labels

    @property
    def meaning(self) -> str:
        """Early against late kicks."""
        labels = ""
        if self.relabelled is not None:
            labels = f" The first changes what {self.relabelled[0]:.0%} of the samples show, the last {self.relabelled[-1]:.0%}."
        return (
            f"Noise of {self.amplitude:g} of the level, added at ratio {self.ratios[0]:.3g}, moves a sample by {self.changes[0]:.2f};"
            f" at ratio {self.ratios[-1]:.3g} it moves it by {self.changes[-1]:.2f}.{labels}"
        )

    def plot(self, ax: Any) -> None:
        """Gain along the component over the noise-to-signal ratio, the Gaussian's, and the Gaussian's run backwards in time."""
        ax.semilogx(self.ratios, self.gains, "o-", color="C0", label="model")
        ax.semilogx(self.ratios, self.gains_predicted, "s--", color="C1", label="Gaussian flow")
        ax.semilogx(self.ratios, self.gains_predicted[::-1], ":", color="C2", label="Gaussian flow, levels reversed")
        ax.set_xlabel("noise-to-signal ratio of the kick")
        ax.set_ylabel(f"shift of the sample per unit of kick, component {self.component}")
        ax.legend()


def perturbation_response(
    denoiser: Denoiser,
    trajectory: Trajectory,
    law: Gaussian,
    ratios: Sequence[float],
    *,
    component: int = 0,
    amplitude: float = 0.25,
    labeller: Labeller | None = None,
    condition: Tensor | None = None,
    seed: int = 0,
) -> PerturbationResponse:
    """Kick trajectories at the nodes nearest to some noise levels, and finish them.

    Along the component both signs are tried, by `amplitude` local standard deviations, and their shifts averaged: to first order the
    derivative. The isotropic kick is `amplitude sigma` times noise.

    Arguments:
        denoiser: the model.
        trajectory: its probability flow, e.g. `sample.reference`.
        law: the Gaussian whose components are kicked and whose flow predicts.
        ratios: the levels; two that are nearest to the same node count once. A node without signal or noise is not taken.
        component: which component, counted from the one of most variance.
        amplitude: of all kicks, in local standard deviations.
        labeller: what a sample shows, e.g. the label of its nearest neighbour in the data.
        condition: as the denoiser takes it, one row per trajectory.
        seed: of the isotropic kicks.

    Raises:
        ArgumentError: no levels, an amplitude that is not positive, or a component that the law does not have.
    """
    rank = law.covariance.rank
    if not ratios or not amplitude > 0 or not 0 <= component < rank:
        raise ArgumentError("ratios, amplitude, component", (list(ratios), amplitude, component), f"levels, a size and one of {rank}")
    mode, axis = _component(law, component)
    variance = float(law.covariance.eigenvalues[mode])
    isotropic = noise(seed, len(trajectory.end), axis.shape, dtype=trajectory.end.dtype, device=trajectory.end.device).draw(ASIDE)
    rows = []
    for i in nodes_near(trajectory, ratios):
        alpha, sigma = (float(c) for c in trajectory.process.levels(trajectory.times[i]))
        size = amplitude * math.sqrt(alpha**2 * variance + sigma**2)
        along = axis.to(trajectory.end).expand_as(isotropic) * size
        program = finishing(trajectory, law, i)
        kicks = torch.stack([along, -along, amplitude * sigma * isotropic], 1)
        base, moved = kicked(denoiser, trajectory.states[i], kicks, program, condition=condition)
        gain = float((moved[:, 0] - moved[:, 1]).mul(axis.to(base)).flatten(1).sum(1).mean()) / (2 * size)
        gains = law.flow(trajectory.process, trajectory.times[i], trajectory.times[-1]).spectrum
        change = float((moved[:, 2] - base).flatten(1).norm(dim=1).mean())
        changed = math.sqrt(float(law.covariance.basis.total(gains**2))) * amplitude * sigma
        label = None if labeller is None else float((labeller(moved[:, 2]) != labeller(base)).double().mean())
        rows.append((sigma / alpha, gain, float(gains[mode]), change, changed, label))
    levels, measured, predicted, changes, expected, labels = (list(column) for column in zip(*rows, strict=True))
    return PerturbationResponse(levels, component, measured, predicted, changes, expected, None if labeller is None else labels, amplitude)


def _component(law: Gaussian, number: int) -> tuple[int, Tensor]:
    """A component's place in the spectrum, and its eigenvector in the shape of the event."""
    mode = int(law.covariance.eigenvalues.argsort(descending=True)[number])
    unit = torch.eye(law.covariance.rank, dtype=law.dtype, device=law.device)[mode : mode + 1]
    return mode, law.covariance.lift(unit).reshape(law.event_shape)


def nodes_near(trajectory: Trajectory, ratios: Sequence[float]) -> list[int]:
    """The nodes whose noise-to-signal ratios are nearest to the given ones, noisiest first, each once; neither end of infinite log-SNR.

    Raises:
        ArgumentError: a ratio that is not positive and finite, or a trajectory without a node between both ends.
    """
    half = trajectory.process.half_log_snr(torch.tensor(trajectory.times, dtype=torch.float64))
    usable = [i for i, value in enumerate(half.tolist()) if math.isfinite(value) and i < len(half) - 1]
    if not usable or not all(0 < k < math.inf for k in ratios):
        raise ArgumentError("ratios", list(ratios), "positive ratios, and a trajectory with nodes between its ends")
    return sorted({min(usable, key=lambda i: abs(float(half[i]) + math.log(k))) for k in ratios})


def finishing(trajectory: Trajectory, law: Gaussian, node: int) -> Program:
    """A program of order 3 from a node of a trajectory along its remaining nodes, which solves the law's flow in closed form."""
    return Exponential(Linearisation.gaussian(law, 0.5), steps=3).compile(trajectory.process, trajectory.times[node:])
