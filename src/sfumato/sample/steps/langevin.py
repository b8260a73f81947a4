r"""Langevin correctors: Markov chains on one noise level, which repair what predictors get wrong.

    x <- x + e s(x, t) + sqrt(2 e) eps,        s = (alpha D - x) / sigma^2,

leaves `p_t` unchanged as `e -> 0`. Two step sizes, with a target ratio `r` of signal to noise and the share `a` of signal that the next
predictor's step keeps (`phi^2`; 1 where noise is only added):

    annealed    e = 2 a (r sigma)^2                         a number: the sweep is a row of a table
    norm        e = 2 a (r |eps| / |s|)^2                    with norms averaged over the batch

A size that follows each sample's own norm depends on where the sample is and moves the chain's law, most of all in few dimensions; the
batch's mean does not, but ties samples to what they are computed with. The annealed size does neither.

A predictor-corrector sampler sweeps at every level before it steps to the next. With the annealed step and a table for a predictor it is a
table itself. Source: Song et al. 2021 (arXiv 2011.13456).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor

from sfumato.denoiser import Denoiser, from_data
from sfumato.errors import ArgumentError
from sfumato.noise import ScalarProcess, Time, over_events
from sfumato.sample.compilers.chain import chain, quiet_end
from sfumato.sample.program import Program, Row
from sfumato.sample.solver import Solver
from sfumato.sample.steps.reverse_sde import ReverseSDE
from sfumato.sample.steps.step import State, Step, Stream
from sfumato.sample.times.schedules import custom

Norms = Literal["batch", "sample"]
"""Whether the norms are the batch's mean, as published, or every sample's own."""


def langevin_coefficients(process: ScalarProcess, t: Time, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`(a, b, c)` of the sweep `x <- a x + b D + c eps` of size `e`: `1 - e / sigma^2`, `e alpha / sigma^2`, `sqrt(2 e)`, float64."""
    alpha, sigma = process.levels(t)
    pull = size / sigma**2
    return 1 - pull, pull * alpha, torch.sqrt(2 * size)


def langevin(x: Tensor, answer: Tensor, eps: Tensor, process: ScalarProcess, t: Time, size: Tensor) -> Tensor:
    """One sweep from `x` with the denoiser's answer there and a standard normal draw; `size` is `e`, a scalar or one per sample."""
    a, b, c = (over_events(v, x) for v in langevin_coefficients(process, t, size))
    return a * x + b * answer + c * eps


def sweeps(process: ScalarProcess, t: float, size: float, count: int) -> Program:
    """`count` sweeps of one size at one level, as a table.

    Raises:
        ArgumentError: a size that is not positive, no sweeps, or a level without noise.
    """
    if not size > 0 or count < 1 or not float(process.sigma(t)) > 0:
        raise ArgumentError("size, count, t", (size, count, t), "a positive size, at least one sweep, and a level with noise")
    a, b, c = (v.reshape(1) for v in langevin_coefficients(process, t, torch.tensor(size, dtype=torch.float64)))
    rows = [Row({i - 1: a}, {i - 1: b}, {i: c}) for i in range(1, count + 1)]
    return Program("langevin", process, (t,) * (count + 1), (Row(), *rows))


@dataclass(frozen=True)
class PredictorCorrector(Solver):
    """A predictor and annealed Langevin sweeps before each of its steps; it ends at the mean of its last step.

    Arguments:
        predictor: any solver; every step starts without history, since a swept state has none.
        sweeps: at each level.
        ratio: the target ratio `r` of signal to noise.
    """

    predictor: Solver = field(default_factory=lambda: ReverseSDE("diffusion"))
    sweeps: int = 1
    ratio: float = 0.16

    def __post_init__(self) -> None:
        if self.sweeps < 1 or not 0 < self.ratio < 1:
            raise ArgumentError("sweeps, ratio", (self.sweeps, self.ratio), "at least one sweep, and a ratio in (0, 1)")

    @property
    def name(self) -> str:
        return f"{self.predictor.name}+{self.sweeps}-langevin"

    @property
    def deterministic(self) -> bool:
        return False

    def compile(self, process: ScalarProcess, times: Sequence[float]) -> Program:
        parts = []
        for t, s in pairwise(custom(times)):
            kept = float(process.transition(s, t).phi) ** 2
            size = 2 * kept * (self.ratio * float(process.sigma(t))) ** 2
            # where the step keeps no signal the level is the prior itself, and there is nothing to correct
            parts += [sweeps(process, t, size, self.sweeps)] if size else []
            parts.append(self.predictor.compile(process, (t, s)))
        return chain([*parts[:-1], quiet_end(parts[-1])], self.name)


@dataclass(frozen=True)
class NormLangevin:
    """A sweep at `t` (`s` is not read) whose size follows the score's norm, see the module.

    Arguments:
        ratio: `r`.
        kept: `a`.
        norms: "batch" as published, or "sample", which moves the law.
    """

    ratio: float = 0.16
    kept: float = 1.0
    norms: Norms = "batch"

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1 or not 0 < self.kept <= 1:
            raise ArgumentError("ratio, kept", (self.ratio, self.kept), "a ratio in (0, 1) and a share in (0, 1]")
        if self.norms not in get_args(Norms):
            raise ArgumentError("norms", repr(self.norms), f"one of {', '.join(get_args(Norms))}")

    def __call__(
        self, denoiser: Denoiser, process: ScalarProcess, x: Tensor, t: Time, s: Time, state: State, stream: Stream
    ) -> tuple[Tensor, State]:
        """One sweep at `t`."""
        answer, eps = denoiser.denoise(x, t), stream.normal()
        score = from_data(answer, "score", x, t, process)
        lengths = [torch.linalg.vector_norm(v.flatten(1).to(torch.float64), dim=1) for v in (eps, score)]
        if self.norms == "batch":
            lengths = [v.mean() for v in lengths]
        size = 2 * self.kept * (self.ratio * lengths[0] / lengths[1]) ** 2
        return langevin(x, answer, eps, process, t, size), state


@dataclass(frozen=True)
class Corrected:
    """A step with `count` sweeps of a corrector before it."""

    step: Step
    corrector: Step
    count: int = 1

    def __call__(
        self, denoiser: Denoiser, process: ScalarProcess, x: Tensor, t: Time, s: Time, state: State, stream: Stream
    ) -> tuple[Tensor, State]:
        """Sweeps at `t`, then the step to `s`."""
        for _ in range(self.count):
            x, _ = self.corrector(denoiser, process, x, t, t, None, stream)
        return self.step(denoiser, process, x, t, s, state, stream)
