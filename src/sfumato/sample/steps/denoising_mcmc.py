r"""A Markov chain over noisy data and their noise level, whose states are near the data and need only a short way down.

The target is `p(x, j) = p_j p_{t_j}(x)` over levels `t_0 < ... < t_{T-1}`, equally likely unless told otherwise. A sweep moves the data at
their level, and then draws the level anew (Langevin-Gibbs),

    x <- x + (eta / 2) s(x, t_j) + sqrt(eta) eps,        j ~ p(j | x),

with `eta` fixed or `kappa (sigma_j^2 + alpha_j^2 v)`. Unadjusted, the step lifts the mean level unless kappa is small; adjusted (MALA), a
move is accepted with the probability that leaves the target alone, which asks for `log p_{t_j}` and so for an exact law. Every few sweeps
the state is carried down from its own level. Source: Kim & Ye 2022 (arXiv 2209.14593); the adjustment is ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sfumato.denoiser import Denoiser, from_data
from sfumato.errors import ArgumentError
from sfumato.exact.laws.law import Law
from sfumato.noise import ScalarProcess, over_events
from sfumato.sample.compilers.heun import Heun
from sfumato.sample.solver import Solver
from sfumato.sample.steps.langevin import langevin
from sfumato.sample.steps.step import Step, Stream, walk

LevelLogits = Callable[[Tensor], Tensor]
"""`x (batch, *event) -> log p(j | x) (batch, levels)`, up to a constant of each row."""

Draw = Literal["sample", "argmax", "frozen"]
"""The level's move: a draw of `p(j | x)`; its mode, which changes the law; none."""

Keep = Literal["last", "least"]
"""Which state of a block of sweeps is emitted: its last, or the one of the lowest level, which changes the law."""


def log_levels(process: ScalarProcess, count: int, low: float, high: float) -> tuple[float, ...]:
    """The times of `count` noise-to-signal ratios, equally spaced in the logarithm from `low` to `high`."""
    if count < 2 or not 0 < low < high:
        raise ArgumentError("count, low, high", (count, low, high), "at least 2 levels, and 0 < low < high")
    ratios = torch.exp(torch.linspace(math.log(low), math.log(high), count, dtype=torch.float64))
    return tuple(process.time_of_ratio(ratios.clamp(max=high)).tolist())


class ExactLevels:
    """`log p_j + log p_{t_j}(x)` of a law: the joint log-density, so that moves can be adjusted.

    Arguments:
        law: of the clean data.
        process, times: the levels.
        prior: `p_j`; equal by default.
    """

    def __init__(self, law: Law, process: ScalarProcess, times: Sequence[float], prior: Sequence[float] | None = None) -> None:
        weights = torch.ones(len(times), dtype=torch.float64) if prior is None else torch.tensor(list(prior), dtype=torch.float64)
        if weights.shape != (len(times),) or not bool((weights > 0).all() and torch.isfinite(weights).all()):
            raise ArgumentError("prior", prior, f"{len(times)} positive weights")
        self._laws = [law.through(process, t) for t in times]
        self._prior = torch.log(weights / weights.sum())

    def __call__(self, x: Float[Tensor, " batch *event"]) -> Float[Tensor, "batch levels"]:
        """The joint log-density at every level."""
        return torch.stack([law.log_prob(x) for law in self._laws], 1) + self._prior


@dataclass(frozen=True)
class Chains:
    """Where chains are: data, level, what the data say about the level, and how many moves of the data were accepted."""

    x: Float[Tensor, " batch *event"]
    level: Int[Tensor, " batch"]
    logits: Float[Tensor, "batch levels"]
    accepted: Int[Tensor, " batch"]


@dataclass(frozen=True)
class DenoisingMCMC:
    """Langevin-Gibbs sweeps over data and noise level, see the module.

    Arguments:
        denoiser: its process's; must take one time per sample.
        times: the levels, rising.
        logits: `ExactLevels`, or a classifier of noise levels.
        kappa: the step size in units of `sigma^2 + alpha^2 v`.
        variance: `v`, of the data within a mode; with a fixed `eta` leave it.
        eta: a fixed step size instead.
        adjusted: accept or reject moves; only with `ExactLevels`.
        draw: how the level moves.
        moves: of the data per move of the level.
    """

    denoiser: Denoiser
    times: tuple[float, ...]
    logits: LevelLogits
    kappa: float = 0.1
    variance: float = 0.0
    eta: float | None = None
    adjusted: bool = False
    draw: Draw = "sample"
    moves: int = 1

    def __post_init__(self) -> None:
        if len(self.times) < 2 or not all(0 < a < b <= 1 for a, b in zip(self.times, self.times[1:], strict=False)):
            raise ArgumentError("times", self.times[:4], "at least two levels in (0, 1] that rise")
        if self.adjusted and not isinstance(self.logits, ExactLevels):
            raise ArgumentError("adjusted", True, "False without `ExactLevels`", "A classifier does not know the data's density.")
        sizes = (self.kappa, self.variance, 1.0 if self.eta is None else self.eta)
        if not (sizes[0] > 0 and sizes[1] >= 0 and sizes[2] > 0) or self.moves < 1:
            raise ArgumentError("kappa, variance, eta, moves", (*sizes, self.moves), "positive steps, a variance of at least 0, and a move")
        if self.draw not in get_args(Draw):
            raise ArgumentError("draw", repr(self.draw), f"one of {', '.join(get_args(Draw))}")

    @cached_property
    def _clock(self) -> Tensor:
        return torch.tensor(self.times, dtype=torch.float64)

    def start(self, x: Float[Tensor, " batch *event"], level: Int[Tensor, " batch"]) -> Chains:
        """Chains at `x` and `level`.

        Raises:
            ArgumentError: a level that is none, or logits of another number of levels.
        """
        logits = self.logits(x)
        if logits.shape != (len(x), len(self.times)) or level.shape != (len(x),):
            raise ArgumentError(
                "logits, level", (tuple(logits.shape), tuple(level.shape)), f"{len(self.times)} levels for each of {len(x)}"
            )
        if not bool(((level >= 0) & (level < len(self.times))).all()):
            raise ArgumentError("level", level.tolist()[:4], f"numbers of levels, 0 to {len(self.times) - 1}")
        return Chains(x, level, logits, torch.zeros_like(level))

    def begin(self, x: Float[Tensor, " batch *event"], stream: Stream, ratio: float) -> Chains:
        """Chains that start from clean samples, noised to the level nearest to a noise-to-signal ratio (0.5 as published)."""
        near = int((torch.log(self.denoiser.process.ratio(self._clock)) - math.log(ratio)).abs().argmin())
        noisy = self.denoiser.process.sample(x, self.times[near], stream.normal())
        return self.start(noisy, torch.full((len(x),), near, dtype=torch.long, device=x.device))

    def sweep(self, chains: Chains, stream: Stream) -> Chains:
        """The next state: moves of the data at their level, then of the level."""
        with torch.no_grad():
            for _ in range(self.moves):
                chains = self._move(chains, stream)
            return Chains(chains.x, self._relevel(chains, stream), chains.logits, chains.accepted)

    def blocks(self, chains: Chains, stream: Stream, sweeps: int, keep: Keep = "last") -> Iterator[tuple[Chains, Chains]]:
        """Without end: the state after every `sweeps` sweeps, and the one of them to emit.

        Raises:
            ArgumentError: no sweeps, or an unknown choice.
        """
        if sweeps < 1 or keep not in get_args(Keep):
            raise ArgumentError("sweeps, keep", (sweeps, keep), f"at least one sweep, and one of {', '.join(get_args(Keep))}")
        while True:
            best: Chains | None = None
            for _ in range(sweeps):
                chains = self.sweep(chains, stream)
                best = chains if best is None or keep == "last" else _lower(best, chains)
            yield chains, chains if best is None else best

    def _move(self, chains: Chains, stream: Stream) -> Chains:
        x, t = chains.x, self._clock.to(chains.x.device)[chains.level]
        alpha, sigma = self.denoiser.process.levels(t)
        eta = self.kappa * (sigma**2 + alpha**2 * self.variance) if self.eta is None else torch.full_like(t, self.eta)
        answer = self.denoiser.denoise(x, t)
        new = langevin(x, answer, stream.normal(), self.denoiser.process, t, eta / 2)
        logits = self.logits(new)
        if not self.adjusted:
            return Chains(new, chains.level, logits, chains.accepted + 1)
        rows = torch.arange(len(x), device=x.device)
        gain = logits[rows, chains.level] - chains.logits[rows, chains.level]
        gain = gain + self._log_way(new, x, self.denoiser.denoise(new, t), t, eta) - self._log_way(x, new, answer, t, eta)
        good = torch.log(stream.uniform()) < gain
        kept = torch.where(over_events(good, x).bool(), new, x)
        return Chains(kept, chains.level, torch.where(good[:, None], logits, chains.logits), chains.accepted + good)

    def _log_way(self, a: Tensor, b: Tensor, answer: Tensor, t: Tensor, eta: Tensor) -> Tensor:
        """`log q(b | a)` of a move, up to a constant."""
        score = from_data(answer, "score", a, t, self.denoiser.process)
        away = (b - a - over_events(eta / 2, a) * score).flatten(1)
        return -away.square().sum(1) / (2 * eta)

    def _relevel(self, chains: Chains, stream: Stream) -> Tensor:
        if self.draw == "frozen":
            return chains.level
        if self.draw == "argmax":
            return chains.logits.argmax(1)
        edges = torch.softmax(chains.logits.to(torch.float64), 1).cumsum(1)
        chosen = torch.searchsorted(edges, (stream.uniform() * edges[:, -1])[:, None], right=True)[:, 0]
        return chosen.clamp(max=len(self.times) - 1)


def _lower(a: Chains, b: Chains) -> Chains:
    """Row by row the state at the lower level, the newer one of two at the same."""
    newer = b.level <= a.level
    x = torch.where(over_events(newer, a.x).bool(), b.x, a.x)
    return Chains(x, torch.where(newer, b.level, a.level), torch.where(newer[:, None], b.logits, a.logits), b.accepted)


def descend(
    denoiser: Denoiser,
    x: Float[Tensor, " batch *event"],
    t: Float[Tensor, " batch"],
    end: float,
    stream: Stream,
    points: int = 2,
    method: Solver | Step | None = None,
) -> Float[Tensor, " batch *event"]:
    """Carry every sample from its own time `t` to `end` on `points` points, equal in the ratio's 7th root, and ask for the clean data.

    Arguments:
        denoiser: must take one time per sample.
        method: a solver or a step; by default Heun's method.

    Raises:
        ArgumentError: fewer than 2 points, or a sample below `end`.
    """
    process = denoiser.process
    if points < 2 or not end > 0 or not bool((t >= end).all()):
        raise ArgumentError("points, end, t", (points, end, float(t.min())), "at least 2 points, and times from a positive `end` up")
    above = torch.nonzero(t > end)[:, 0]
    if len(above):
        ramp = torch.linspace(0, 1, points, dtype=torch.float64)[:, None]
        high, low = (process.ratio(u) ** (1 / 7) for u in (t[above], torch.tensor(end, dtype=torch.float64)))
        grid = process.time_of_ratio((high + ramp * (low - high)) ** 7)
        grid[0], grid[-1] = t[above], end
        part = stream.part(above.tolist())
        x = x.index_copy(0, above, walk(Heun() if method is None else method, denoiser, process, x[above], grid, part))
        stream.used = part.used
    with torch.no_grad():
        return denoiser.denoise(x, torch.full_like(t, end))
