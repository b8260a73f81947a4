r"""The step protocol: what is not a table, and what wraps either.

A *step* is a function `(denoiser, process, x, t, s, state, stream) -> (x, state)` that carries samples from time `t` to time `s`. It
keeps nothing: what it has to remember it returns in `state` (None at first), and its noise is the next draws of the stream, so the same
draws give the same step. Times are scalars or one per sample `(batch,)`.

Solvers become steps by `TableStep`, and both are walked over falling times by `walk`; correctors, restarts and churn wrap either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError, ShapeError
from sfumato.noise import ScalarProcess, Time, over_events
from sfumato.sample.program import Program
from sfumato.sample.run import Draws, run
from sfumato.sample.solver import Solver
from sfumato.seeds import Noise, Seed, noise

State = object | None
"""What a step remembers; None at the first step."""


@dataclass
class Stream:
    """The draws of a walk, in the order they are asked for: draw after draw of every sample's own noise.

    Arguments:
        noise: the samples' noise.
        used: how many draws are gone; draw 0 belongs to the start.
    """

    noise: Noise
    used: int = 1

    @classmethod
    def of(cls, seed: Seed, x: Float[Tensor, " batch *event"]) -> Stream:
        """The stream of samples `0, 1, ...` shaped as `x`, under a seed."""
        return cls(noise(seed, len(x), x.shape[1:], dtype=x.dtype, device=x.device))

    def normal(self) -> Float[Tensor, " batch *event"]:
        """The next standard normal draw."""
        self.used += 1
        return self.noise.draw(self.used - 1)

    def uniform(self) -> Float[Tensor, " batch"]:
        """The next draw from (0, 1), one number a sample, float64."""
        self.used += 1
        single = Noise(self.noise.keys, (1,), torch.float64, self.noise.device)
        return torch.special.ndtr(single.draw(self.used - 1)[:, 0])

    def take(self, count: int) -> Draws:
        """The next `count` draws, numbered from 1 as a program numbers them."""
        first = self.used - 1
        self.used += count
        return _Later(self.noise, first)

    def part(self, rows: Sequence[int]) -> Stream:
        """The stream of some of the samples, from here on."""
        keys = tuple(self.noise.keys[i] for i in rows)
        return Stream(Noise(keys, self.noise.event, self.noise.dtype, self.noise.device), self.used)


@dataclass(frozen=True)
class _Later:
    noise: Noise
    first: int

    def draw(self, j: int) -> Tensor:
        return self.noise.draw(self.first + j)


@runtime_checkable
class Step(Protocol):
    """From time `t` to time `s`, see the module."""

    def __call__(
        self, denoiser: Denoiser, process: ScalarProcess, x: Tensor, t: Time, s: Time, state: State, stream: Stream
    ) -> tuple[Tensor, State]:
        """The samples at `s`, and what the next step should know."""


@dataclass(frozen=True)
class TableStep:
    """A solver's program over the single step from `t` to `s`; a multistep solver has no history there. Draws are used as they come."""

    solver: Solver

    def __call__(
        self, denoiser: Denoiser, process: ScalarProcess, x: Tensor, t: Time, s: Time, state: State, stream: Stream
    ) -> tuple[Tensor, State]:
        first, last = (torch.as_tensor(u, dtype=torch.float64) for u in (t, s))
        shape = (len(x),) if first.ndim or last.ndim else ()
        ends = torch.stack([first.expand(shape), last.expand(shape)])
        return _solve(self.solver, denoiser, process, x, ends, stream), state


def walk(
    method: Solver | Step,
    denoiser: Denoiser,
    process: ScalarProcess,
    x: Float[Tensor, " batch *event"],
    times: Sequence[float] | Tensor,
    stream: Stream,
) -> Float[Tensor, " batch *event"]:
    """Carry samples from the first time to the last.

    Arguments:
        method: a solver, whose whole program is run, or a step, taken between neighbouring times.
        denoiser: asked under `process`, whatever its own.
        times: falling; `(nodes,)`, or `(nodes, batch)` where every sample has times of its own.
        stream: the noise.

    Raises:
        ArgumentError: times that a sample's schedule cannot have, see `schedules.custom`.
        ShapeError: times of another shape.
    """
    grid = times.to(torch.float64) if isinstance(times, Tensor) else torch.tensor(list(times), dtype=torch.float64)
    if grid.ndim not in (1, 2) or (grid.ndim == 2 and grid.shape[1] != len(x)):
        raise ShapeError("times", tuple(grid.shape), f"(nodes,), or (nodes, {len(x)}) with one column per sample")
    denoiser = denoiser.under(process)
    if isinstance(method, Solver):
        return _solve(method, denoiser, process, x, grid, stream)
    if len(grid) < 2 or not bool((grid[1:] < grid[:-1]).all()):
        raise ArgumentError("times", grid.tolist(), "at least two times that fall strictly")
    state: State = None
    with torch.no_grad():
        for t, s in pairwise(grid):
            x, state = method(denoiser, process, x, t, s, state, stream)
    return x


def _solve(solver: Solver, denoiser: Denoiser, process: ScalarProcess, x: Tensor, times: Tensor, stream: Stream) -> Tensor:
    with torch.no_grad():
        if times.ndim == 1:
            program = solver.compile(process, times.tolist())
            return run(program, lambda y, t: denoiser.denoise(y, t), x, stream.take(max(program.draws, default=0)))
        columns, which = torch.unique(times.T, dim=0, return_inverse=True)
        tables = Tables.of([solver.compile(process, column.tolist()) for column in columns])
        return tables.run(denoiser, x, which, stream.take(tables.draws))


@dataclass(frozen=True)
class Tables:
    """Programs of one solver over different times, to be run together: every sample follows a program of its own.

    Arguments:
        times: `(programs, nodes)`.
        parts: the tables `A, B, C` `(programs, nodes, nodes)` of the states, the answers and the noise, float64.
    """

    times: Float[Tensor, "programs nodes"]
    parts: tuple[Tensor, Tensor, Tensor]
    draws: int = field(default=0)

    @classmethod
    def of(cls, programs: Sequence[Program]) -> Tables:
        """The programs' tables side by side.

        Raises:
            ArgumentError: no programs, spectral ones, or ones with different numbers of nodes.
        """
        if len({len(p.times) for p in programs}) != 1 or any(p.space is not None for p in programs):
            raise ArgumentError("programs", [p.name for p in programs][:4], "scalar programs with the same number of nodes")
        a, b, c = (torch.stack(part)[..., 0] for part in zip(*(p.dense() for p in programs), strict=True))
        times = torch.tensor([p.times for p in programs], dtype=torch.float64)
        return cls(times, (a, b, c), max((j for p in programs for j in p.draws), default=0))

    def run(self, denoiser: Denoiser, x: Float[Tensor, " batch *event"], which: Tensor, draws: Draws) -> Float[Tensor, " batch *event"]:
        """Walk sample `i` by program number `which[i]`."""
        asked = self.parts[1].any(0).any(0)
        states, answers, noises = {0: x}, dict[int, Tensor](), dict[int, Tensor]()
        for i in range(self.times.shape[1]):
            if i:
                row = [part[which, i] for part in self.parts]
                for j in torch.nonzero(row[2].any(0))[:, 0].tolist():
                    noises.setdefault(j, draws.draw(j))
                total = torch.zeros_like(x)
                for coefficients, seen in zip(row, (states, answers, noises), strict=True):
                    for j in torch.nonzero(coefficients.any(0))[:, 0].tolist():
                        total = total + over_events(coefficients[:, j], x) * seen[j]
                states[i] = total
            if asked[i]:
                answers[i] = denoiser.denoise(states[i], self.times[which, i])
        return states[self.times.shape[1] - 1]
