r"""The landscape that a denoiser climbs, and how its valleys part as noise falls.

A fixed point `y = D(alpha y, t)`, in the units of clean data, is a critical point of the noisy density `log p_t`, for
`D - x / alpha = (sigma^2 / alpha) grad log p_t`. The iteration `y <- D(alpha y, t)` is mean shift: it climbs to a mode at the rate `g`, the
largest eigenvalue of `alpha dD/dx` there, which tends to 1 where two modes merge. Steps are extrapolated (Nesterov's momentum, restarted
where it would lead downhill), so the rate is about `1 - sqrt(1 - g)`; a start that has still not come to rest is counted, not hidden.

From level to level, upwards in noise, every mode climbs on to the mode that takes it in: that is the tree.
Sources: Wang & Vastola 2023 (arXiv 2303.02490), section 3; restarts: O'Donoghue & Candes 2015 (arXiv 1204.3982).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.explain.explanation import Explanation

_MERGE = 0.25
"""Resting points nearer than this share of the noise-to-signal ratio are one mode. A point at rest lies within `_SETTLE (l + k^2) / k`
of its mode, so that modes are told apart wherever the widest local variance `l` is below 1000 `k^2`."""
_SETTLE = 1e-4
"""A point is at rest when a step moves it by less than this share of the noise-to-signal ratio, or by rounding alone."""


@dataclass(frozen=True)
class Level:
    """The modes of the noisy density at one noise-to-signal ratio.

    Arguments:
        ratio: the level.
        modes: in the units of clean data, those with the largest basins first, `(modes, *event)`.
        basins: the share of the starts in each mode's basin.
        parents: for each mode the number of the mode of the next noisier level that takes it in; empty at the noisiest.
        restless: how many starts had not come to rest.
    """

    ratio: float
    modes: Float[Tensor, "modes *event"]
    basins: list[float]
    parents: list[int]
    restless: int


@dataclass(frozen=True)
class ModeTree(Explanation):
    """Modes by noise level, the least noise first.

    Arguments:
        levels: the levels.
        starts: how many points were climbed from.
    """

    levels: list[Level]
    starts: int

    @property
    def counts(self) -> list[int]:
        """The number of modes at each level."""
        return [len(level.modes) for level in self.levels]

    @property
    def merges(self) -> list[tuple[float, int]]:
        """`(ratio, modes lost)` for every level that takes in several modes of the level below as one."""
        out = []
        for below, above in zip(self.levels[:-1], self.levels[1:], strict=True):
            lost = len(below.parents) - len(set(below.parents))
            if lost:
                out.append((above.ratio, lost))
        return out

    @property
    def single_from(self) -> float:
        """The lowest ratio from which on there is one mode; infinite if there are more at the noisiest level."""
        ratio = float("inf")
        for level in reversed(self.levels):
            if len(level.modes) > 1:
                break
            ratio = level.ratio
        return ratio

    @property
    def numbers(self) -> dict[str, float]:
        """Modes at the cleanest and the noisiest level, where they have all merged, and how many climbs did not come to rest."""
        return {
            "modes_at_least_noise": float(self.counts[0]),
            "modes_at_most_noise": float(self.counts[-1]),
            "one_mode_from_ratio": self.single_from,
            "largest_basin_at_least_noise": self.levels[0].basins[0],
            "restless": float(sum(level.restless for level in self.levels)),
        }

    @property
    def meaning(self) -> str:
        """How many modes there are, and when they part."""
        single = self.counts[-1] == 1
        where = (
            f"a single one from ratio {self.single_from:.3g} on" if single else f"still {self.counts[-1]} at {self.levels[-1].ratio:.3g}"
        )
        restless = sum(level.restless for level in self.levels)
        return (
            f"Climbing from {self.starts} starts finds modes of the model's landscape: {self.counts[0]} at noise-to-signal ratio"
            f" {self.levels[0].ratio:.3g}, {where}; samples are chosen where these part."
            + (f" {restless} climbs did not come to rest." if restless else "")
        )

    def plot(self, ax: Any) -> None:
        """The number of modes over the noise-to-signal ratio, a Gaussian's one mode, and the number of starts."""
        ax.loglog([level.ratio for level in self.levels], self.counts, "o-", color="C0", label="model")
        ax.axhline(1, linestyle="--", color="C1", label="Gaussian")
        ax.axhline(self.starts, linestyle=":", color="C2", label="every start a mode of its own")
        ax.set_xlabel("noise-to-signal ratio")
        ax.set_ylabel("modes")
        ax.legend()


def mean_shift(
    denoiser: Denoiser,
    starts: Float[Tensor, "batch *event"],
    ratio: float,
    *,
    iterations: int = 300,
    condition: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Climb to modes of the noisy density: where each start comes to rest, and whether it did, `(batch,)`.

    Arguments:
        denoiser: the belief.
        starts: in the units of clean data, as the modes are.
        ratio: the noise-to-signal ratio, positive and finite.
        iterations: at most so many evaluations for each start.
        condition: as the denoiser takes it, one row per start.

    Raises:
        ArgumentError: a level that the process does not have, or no iterations.
    """
    process = denoiser.process
    t = float(process.time_of_ratio(ratio))
    alpha = float(process.alpha(t))
    if not (ratio > 0 and alpha > 0) or iterations < 1:
        raise ArgumentError("ratio, iterations", (ratio, iterations), "a level with signal and noise, and at least one iteration")
    y, still = starts.detach().clone(), torch.zeros(len(starts), dtype=torch.bool, device=starts.device)
    ahead, momentum = y.clone(), starts.new_zeros(len(starts))
    rounding = 8 * torch.finfo(y.dtype).eps
    with torch.no_grad():
        for _ in range(iterations):
            rows = torch.nonzero(~still)[:, 0]
            if not len(rows):
                break
            here, given = ahead[rows], None if condition is None else condition[rows]
            new = denoiser.denoise(alpha * here, t, given)
            limit = (rounding * new.flatten(1).norm(dim=1)).clamp(min=_SETTLE * ratio)
            still[rows] = (new - here).flatten(1).norm(dim=1) <= limit
            step = new - y[rows]
            # uphill is along new - here; a step against it has gone too far
            downhill = ((new - here) * step).flatten(1).sum(1) < 0
            count = torch.where(downhill, 0.0, momentum[rows] + 1)
            ahead[rows] = new + (count / (count + 3)).reshape(-1, *[1] * (new.ndim - 1)) * step
            y[rows], momentum[rows] = new, count
    return y, still


def mode_tree(
    denoiser: Denoiser,
    ratios: Sequence[float],
    starts: Float[Tensor, "batch *event"],
    *,
    iterations: int = 300,
    condition: Tensor | None = None,
) -> ModeTree:
    """The modes that starts climb to at rising noise levels, and how they merge.

    At the least noise every start climbs; at each further level the modes of the level below do, and take their basins along.

    Arguments:
        denoiser: the model.
        ratios: noise-to-signal ratios, positive and finite, in any order.
        starts: clean data or samples `(batch, *event)`.
        iterations: at most so many evaluations for each climb.
        condition: what all starts are conditioned on, one sample's worth, as for `emergence_by_condition`.

    Raises:
        ArgumentError: no levels or starts, or levels that the process does not have.
    """
    levels = sorted({float(k) for k in ratios})
    if not levels or not len(starts):
        raise ArgumentError("ratios, starts", (len(levels), len(starts)), "at least one noise level and one start")
    out: list[Level] = []
    points, weights = starts, torch.full((len(starts),), 1 / len(starts), dtype=torch.float64)
    for ratio in levels:
        given = None if condition is None else condition.expand(len(points), *condition.shape)
        ends, still = mean_shift(denoiser, points, ratio, iterations=iterations, condition=given)
        owner = _merged(ends, _MERGE * ratio)
        basins = torch.zeros(int(owner.max()) + 1, dtype=torch.float64).index_add_(0, owner, weights)
        order = basins.argsort(descending=True, stable=True)
        rank = order.argsort()
        if out:
            out[-1] = replace(out[-1], parents=rank[owner].tolist())
        first = torch.tensor([int((owner == o).nonzero()[0]) for o in order.tolist()])
        points, weights = ends[first.to(ends.device)], basins[order]
        out.append(Level(ratio, points, weights.tolist(), [], int((~still).sum())))
    return ModeTree(out, len(starts))


def _merged(points: Tensor, radius: float) -> Tensor:
    """The number of the cluster that each point belongs to; points nearer than the radius, directly or by others between, are one."""
    from scipy.sparse.csgraph import connected_components

    flat = points.flatten(1).to(torch.float64)
    near = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist") <= radius
    return torch.from_numpy(connected_components(near.cpu().numpy(), directed=False)[1]).to(torch.int64)
