r"""When a trajectory commits itself to one mode of a mixture.

At every node the responsibilities `R_j(x_t)` of the noisy mixture say how undecided the sample is. It is *undecided* while
`max_j R_j < 1/2` or the entropy of `R` exceeds `log(2) / 2`; it commits itself at the last undecided node.
Source: Wang & Vastola 2023 (arXiv 2303.02490), section 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.exact import GaussianMixture
from sfumato.explain.explanation import Explanation
from sfumato.sample import Trajectory


@dataclass(frozen=True)
class Commitment(Explanation):
    """How decided trajectories are about their mode.

    Arguments:
        ratios: the noise-to-signal ratio at every node, falling.
        leading: the mean responsibility of the leading mode at every node.
        undecided: the share of undecided trajectories at every node.
        committed: each trajectory's ratio at its last undecided node; NaN where it was decided from the start.
        modes: each trajectory's mode at its end.
        chance: the leading weight of the mixture: what `leading` is without any information.
    """

    ratios: list[float]
    leading: list[float]
    undecided: list[float]
    committed: list[float]
    modes: list[int]
    chance: float

    @property
    def numbers(self) -> dict[str, float]:
        """The median ratio of commitment, and those between which the middle half of the trajectories commit themselves."""
        known = torch.tensor([k for k in self.committed if not math.isnan(k)], dtype=torch.float64)
        late, median, early = known.quantile(known.new_tensor([0.25, 0.5, 0.75])).tolist() if len(known) else [math.nan] * 3
        return {"median_ratio": median, "early_ratio": early, "late_ratio": late, "modes_reached": float(len(set(self.modes)))}

    @property
    def meaning(self) -> str:
        """When the choice falls."""
        n = self.numbers
        return (
            f"Half of the trajectories have chosen one of {n['modes_reached']:.0f} modes when the noise-to-signal ratio falls below"
            f" {n['median_ratio']:.3g}, the middle half of them between {n['early_ratio']:.3g} and {n['late_ratio']:.3g}."
        )

    def plot(self, ax: Any) -> None:
        """The leading responsibility and the undecided share over the noise-to-signal ratio, and chance."""
        kept = [(k, a, b) for k, a, b in zip(self.ratios, self.leading, self.undecided, strict=True) if 0 < k < math.inf]
        ratios, leading, undecided = zip(*kept, strict=True)
        ax.semilogx(ratios, leading, "o-", color="C0", label="responsibility of the leading mode")
        ax.semilogx(ratios, undecided, "s--", color="C1", label="share still undecided")
        ax.axhline(self.chance, linestyle=":", color="C2", label="leading mode by chance")
        ax.set_xlabel("noise-to-signal ratio")
        ax.set_ylabel("share")
        ax.legend()


def commitment(trajectory: Trajectory, mixture: GaussianMixture) -> Commitment:
    """When trajectories, of any model, commit themselves to a component of a mixture fitted to its data.

    Arguments:
        trajectory: from noise to data.
        mixture: at least two components, each with variance in every direction (or a trajectory that ends in noise).

    Raises:
        ArgumentError: a mixture of one component.
    """
    if len(mixture) < 2:
        raise ArgumentError("mixture", "one component", "at least two components to choose from")
    process = trajectory.process
    leads, doubts = [], []
    for x, t in zip(trajectory.states, trajectory.times, strict=True):
        shares = cast(GaussianMixture, mixture.through(process, t)).responsibilities(x).to(torch.float64)
        leads.append(shares.amax(1))
        doubts.append((shares.amax(1) < 0.5) | (torch.special.entr(shares).sum(1) > math.log(2) / 2))
    lead, doubt = torch.stack(leads), torch.stack(doubts)
    ratios = process.ratio(torch.tensor(trajectory.times, dtype=torch.float64))
    return Commitment(
        ratios.tolist(),
        lead.mean(1).tolist(),
        doubt.double().mean(1).tolist(),
        _last(doubt, ratios).tolist(),
        shares.argmax(1).tolist(),
        float(mixture.weights.max()),
    )


def _last(doubt: Tensor, ratios: Tensor) -> Tensor:
    """The ratio at each column's last true entry, NaN where there is none."""
    rows = torch.arange(len(doubt), device=doubt.device)[:, None].expand_as(doubt)
    last = torch.where(doubt, rows, -1).amax(0).cpu()
    return torch.where(last >= 0, ratios[last.clamp(min=0)], math.nan)
