r"""Every spacing under one signature: `n` steps of falling times that end at no noise, for a process and the scale of a law.

| name | equal steps in, or optimal for |
|---|---|
| log-snr | half log-SNR, i.e. `log k` |
| edm | `k^(1/7)` (Karras et al. 2022, arXiv 2206.00364) |
| time, quadratic | `t`, `sqrt(t)`: their last step may be as long as any |
| ays | the bound on the divergence of a frozen belief (Sabour et al. 2024, arXiv 2404.14507) |
| gits | Euler's jumps along the flow (Chen et al. 2024, arXiv 2405.11326); it chooses its own last node |

Ratios are told in units of the law's scale, the root of its mean variance, so that one number means the same for all data. `start` is the
ratio to begin at, None for `t = 1`; `end` is the ratio of the last node before `t = 0`, None if the spacing is to choose. Where `t = 1` has
an infinite ratio, the first step leads to 80 (in the law's scale).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.exact import Gaussian, Law
from sfumato.noise import ScalarProcess
from sfumato.sample import aligned, cheapest_paths, custom, jump_costs, reference, uniform_time
from sfumato.sample.judges.path_divergence import BeliefError, Objective

_HIGH, _RHO = 80.0, 7.0
_SAMPLES, _PATHS, _PLACES, _LEAST = 256, 32, 60, 0.01
_SEED = 2_000_003
_TRIED, _SWEEPS = 11, 4


@dataclass(frozen=True)
class Ground:
    """What spacings may know.

    Arguments:
        process: whose times they are.
        law: the Gaussian of the data; its scale, and the closed form behind teleports.
        world: the law that `ays` and `gits` are made for, e.g. a mixture fitted to the data; by default the Gaussian.
    """

    process: ScalarProcess
    law: Gaussian
    world: Law | None = None

    @cached_property
    def scale(self) -> float:
        """The root of the law's mean variance."""
        return math.sqrt(float(self.law.covariance.trace()) / self.law.dim)

    @cached_property
    def top(self) -> float:
        """The first finite ratio, in the law's scale."""
        last = float(self.process.ratio(1.0)) / self.scale
        return last if math.isfinite(last) else _HIGH

    def times(self, ratios: Sequence[float]) -> tuple[float, ...]:
        """Times of falling ratios in the law's scale, then 0; the first ratio that the process has is `t = 1`."""
        times = self.process.time_of_ratio(torch.tensor(ratios, dtype=torch.float64) * self.scale).tolist()
        if ratios[0] == self.top:
            times = [1.0, *times[1:]] if math.isfinite(float(self.process.ratio(1.0))) else [1.0, *times]
        return custom([*times, 0.0])

    def nodes(self, n: int, start: float | None) -> tuple[int, float]:
        """How many finite ratios make `n` steps from `start`, and the first of them.

        Raises:
            ArgumentError: no step, or no room for one.
        """
        infinite = start is None and not math.isfinite(float(self.process.ratio(1.0)))
        if n < 1 + infinite:
            raise ArgumentError("n", n, f"at least {1 + infinite} steps from here")
        return n - infinite, self.top if start is None else start

    @cached_property
    def steps(self) -> dict[str, tuple[int, int]]:
        """What is known of solvers by name: the evaluations of one step, and how many more another step makes."""
        return {}

    @cached_property
    def cost(self) -> Objective:
        """The bound of the world's belief."""
        high, low = self.top * self.scale * 1.001, _LEAST * self.scale * 0.999
        if self.world is None:
            error = BeliefError.of_gaussian(self.law, high, low)
        else:
            error = BeliefError.measured(self.world.denoiser(self.process), self.world.sample(_SAMPLES, _SEED), high, low)
        return error.bound()

    @cached_property
    def jumps(self) -> tuple[list[float], Tensor]:
        """Ratios in the law's scale along the world's flow, and the costs of Euler's jumps between them and to no noise."""
        ratios = np.geomspace(self.top, _LEAST, _PLACES).tolist()
        times = (*self.process.time_of_ratio(torch.tensor(ratios, dtype=torch.float64) * self.scale).tolist(), 0.0)
        world = self.world or self.law
        denoise = world.denoiser(self.process).denoise
        path = reference(denoise, world.through(self.process, times[0]).sample(_PATHS, _SEED), self.process, self.law, custom(times))
        return ratios, jump_costs(denoise, path)


Spacing = Callable[[Ground, int, float | None, float | None], tuple[float, ...]]
"""`(ground, steps n, start, end) -> n + 1` falling times; raises ArgumentError for what it has no times for."""


def _given(end: float | None, high: float) -> float:
    if end is None or not 0 < end < high:
        raise ArgumentError("end", end, f"a last ratio between 0 and {high:.4g}, which this spacing must be told")
    return end


def _spread(power: float) -> Spacing:
    """Ratios equal in `k^power`; in `log k` for 0."""

    def spacing(ground: Ground, n: int, start: float | None, end: float | None) -> tuple[float, ...]:
        count, high = ground.nodes(n, start)
        low, share = _given(end, high), np.linspace(0, 1, count)
        if power == 0:
            ratios = np.exp((1 - share) * math.log(high) + share * math.log(low))
        else:
            ratios = ((1 - share) * high**power + share * low**power) ** (1 / power)
        return ground.times([high, *ratios[1:].tolist()])

    return spacing


def _timed(power: float) -> Spacing:
    """Times equal in `t^(1/power)`."""

    def spacing(ground: Ground, n: int, start: float | None, end: float | None) -> tuple[float, ...]:
        first = 1.0 if start is None else float(ground.process.time_of_ratio(start * ground.scale))
        if end is None:
            return uniform_time(n, first, power=power)
        low = float(ground.process.time_of_ratio(end * ground.scale))
        return custom([first, 0.0] if n == 1 else [*uniform_time(n - 1, first, low, power), 0.0])

    return spacing


def _aligned(ground: Ground, n: int, start: float | None, end: float | None) -> tuple[float, ...]:
    count, high = ground.nodes(n, start)
    low = _given(end, high)
    if count == 1:
        return ground.times([high])
    unit = ground.scale
    times = aligned(ground.process, count - 1, ground.cost, high * unit, low * unit, candidates=_TRIED, sweeps=_SWEEPS)
    inner = (ground.process.ratio(torch.tensor(times[1:], dtype=torch.float64)) / unit).tolist()
    return ground.times([high, *inner])


def _dynamic(ground: Ground, n: int, start: float | None, end: float | None) -> tuple[float, ...]:
    if end is not None:
        raise ArgumentError("end", end, "None: this spacing chooses its own last node")
    count, high = ground.nodes(n, start)
    ratios, costs = ground.jumps
    first = min(range(len(ratios)), key=lambda i: abs(math.log(ratios[i] / high)))
    path = cheapest_paths(costs[first:, first:], count)[-1]
    return ground.times([high, *(ratios[first + i] for i in path[1:-1])])


SCHEDULES: Mapping[str, Spacing] = MappingProxyType(
    {
        "log-snr": _spread(0.0),
        "edm": _spread(1 / _RHO),
        "time": _timed(1.0),
        "quadratic": _timed(2.0),
        "ays": _aligned,
        "gits": _dynamic,
    }
)
"""Name to spacing, see the module."""
