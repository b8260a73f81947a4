r"""Restart: go back up by one large block of noise, and come down again.

A deterministic step discretises well but carries every old error along; noise forgets errors but needs many small steps. Restart has both:
the flow comes down over its times, and at chosen levels `low`, some times over,

    x <- phi x + S sqrt(q) eps        with x_high | x_low ~ N(phi x_low, q), i.e. noise of variance k_high^2 - k_low^2 in x / alpha,

jumps back to `high`, from where the flow comes down on a few points. Every loop contracts the error that had gathered above, while its own
discretisation stays the flow's. Multistep solvers start without history after a jump. Source: Xu et al. 2023 (arXiv 2306.14878);
`Churned` is the stochastic sampler of Karras et al. 2022 (arXiv 2206.00364), algorithm 2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.noise import ScalarProcess, Time, over_events
from sfumato.sample.compilers.heun import Heun
from sfumato.sample.solver import Solver
from sfumato.sample.steps.step import State, Step, Stream, walk
from sfumato.sample.times.schedules import custom, karras


@dataclass(frozen=True)
class Interval:
    """Where to restart.

    Arguments:
        low, high: noise-to-signal ratios; `low` moves to the nearest of the sampler's times.
        points: of the way down, both ends included: so `points - 1` steps, equally spaced in the ratio's 7th root.
        loops: how often.
    """

    low: float
    high: float
    points: int = 3
    loops: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high < math.inf:
            raise ArgumentError("low, high", (self.low, self.high), "0 < low < high")
        if self.points < 2 or self.loops < 0:
            raise ArgumentError("points, loops", (self.points, self.loops), "at least 2 points, and no negative number of loops")


def noised(
    process: ScalarProcess, x: Float[Tensor, " batch *event"], low: Time, high: Time, stream: Stream, noise: float = 1.0
) -> Float[Tensor, " batch *event"]:
    """The state at time `high` of what is `x` at time `low`: a draw of the forward process, its noise `noise` times as large."""
    forward = process.transition(low, high)
    return over_events(forward.phi, x) * x + noise * over_events(torch.sqrt(forward.covariance), x) * stream.normal()


@dataclass(frozen=True)
class Restart:
    """A sampler that restarts.

    Arguments:
        intervals: any number, also overlapping ones; those at one level in the order given.
        method: a solver or a step.
        inside: another one for the loops, e.g. `Churned`; by default the same.
        noise: `S`, 1.003 as published; 1 keeps exact laws.
    """

    intervals: tuple[Interval, ...]
    method: Solver | Step = field(default_factory=Heun)
    inside: Solver | Step | None = None
    noise: float = 1.0

    def __post_init__(self) -> None:
        if not self.noise >= 0:
            raise ArgumentError("noise", self.noise, "a factor of at least 0")

    def snapped(self, process: ScalarProcess, times: Sequence[float]) -> dict[int, list[tuple[Interval, tuple[float, ...]]]]:
        """The intervals by the place in `times` where they start, each with the times of its way down.

        Raises:
            ArgumentError: an interval that the process does not reach, or whose `low` moves to a level not below its `high`.
        """
        ratios = process.ratio(torch.tensor(custom(times), dtype=torch.float64))
        found: dict[int, list[tuple[Interval, tuple[float, ...]]]] = {}
        for interval in self.intervals:
            # the clean end is no place to restart from: the way down would end at a ratio of 0
            place = int(torch.where(ratios > 0, (ratios - interval.low).abs(), math.inf).argmin())
            low = float(ratios[place])
            if not low < interval.high:
                raise ArgumentError("intervals", interval, f"a `high` above {low:g}, the nearest of the times to its `low`")
            down = karras(process, interval.points, ratio_max=interval.high, ratio_min=low)[:-2]
            found.setdefault(place, []).append((interval, (*down, times[place])))
        return found

    def sample(
        self,
        denoiser: Denoiser,
        process: ScalarProcess,
        x: Float[Tensor, " batch *event"],
        times: Sequence[float],
        stream: Stream,
    ) -> Float[Tensor, " batch *event"]:
        """Walk from `x` at the first time to the last.

        Raises:
            ArgumentError: see `snapped`.
        """
        found, last = self.snapped(process, times), 0
        for place in sorted(found):
            if place > last:
                x = walk(self.method, denoiser, process, x, times[last : place + 1], stream)
            for interval, down in found[place]:
                for looped in self.loops(denoiser, process, x, down, interval.loops, stream):
                    x = looped
            last = place
        return walk(self.method, denoiser, process, x, times[last:], stream) if last < len(times) - 1 else x

    def loops(
        self, denoiser: Denoiser, process: ScalarProcess, x: Tensor, down: Sequence[float], count: int, stream: Stream
    ) -> Iterator[Tensor]:
        """The state after every loop: from the last of the times `down` up to the first, and down again."""
        for _ in range(count):
            x = noised(process, x, down[-1], down[0], stream, self.noise)
            x = walk(self.method if self.inside is None else self.inside, denoiser, process, x, down, stream)
            yield x


def contraction(
    denoiser: Denoiser,
    process: ScalarProcess,
    x: Float[Tensor, " batch *event"],
    y: Float[Tensor, " batch *event"],
    interval: Interval,
    seed: int = 0,
    restart: Restart | None = None,
) -> list[float]:
    """The root mean square distance of two batches of chains after 0, 1, ... loops under the same noise.

    Arguments:
        x, y: states at the level `interval.low`.
        seed: of the noise.
        restart: whose method and noise are used; by default Heun's method.
    """
    sampler = Restart((interval,)) if restart is None else restart
    down = karras(process, interval.points, ratio_max=interval.high, ratio_min=interval.low)[:-1]
    ways = [sampler.loops(denoiser, process, start, down, interval.loops, Stream.of(seed, start)) for start in (x, y)]
    pairs = [(x, y), *zip(*ways, strict=True)]
    return [float((a - b).square().flatten(1).sum(1).mean().sqrt()) for a, b in pairs]


@dataclass(frozen=True)
class Churned:
    """A step that first raises the noise-to-signal ratio by the factor `1 + gamma`, where it is within a band.

    Arguments:
        step: the step down from there.
        gamma: EDM's is `min(S_churn / steps, sqrt(2) - 1)`.
        low, high: the band of ratios.
        noise: the factor of the fresh noise's standard deviation.
    """

    step: Step
    gamma: float
    low: float = 0.0
    high: float = math.inf
    noise: float = 1.0

    def __post_init__(self) -> None:
        if not (self.gamma >= 0 and self.noise >= 0 and 0 <= self.low <= self.high):
            given = (self.gamma, self.noise, self.low, self.high)
            raise ArgumentError("gamma, noise, low, high", given, "factors of at least 0, and 0 <= low <= high")

    def __call__(
        self, denoiser: Denoiser, process: ScalarProcess, x: Tensor, t: Time, s: Time, state: State, stream: Stream
    ) -> tuple[Tensor, State]:
        """Up from `t`, then down to `s`; no higher than the process goes."""
        ratio = process.ratio(t)
        raised = (ratio * (1 + self.gamma)).clamp(max=float(process.ratio(1.0)))
        inside = (ratio >= self.low) & (ratio <= self.high)
        top = torch.where(inside, process.time_of_ratio(raised), torch.as_tensor(t, dtype=torch.float64))
        top = torch.maximum(top, torch.as_tensor(t, dtype=torch.float64))
        return self.step(denoiser, process, noised(process, x, t, top, stream, self.noise), top, s, state, stream)
