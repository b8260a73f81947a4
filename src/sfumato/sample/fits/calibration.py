r"""Calibration: reference paths or statistics in, a table out, and no judging on what was fitted to.

A fitted table remembers the draws that it was fitted on, `(seed, number)` pairs of `sfumato.seeds`, and is judged on starts made of
others. `Starts` carry their draws; `teach` walks them along a finer grid that contains the student's times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.exact.laws.law import Law
from sfumato.noise import ScalarProcess
from sfumato.sample.fits.reference import Trajectory
from sfumato.sample.program import Program
from sfumato.sample.run import Denoise, Event, run
from sfumato.sample.solver import Solver
from sfumato.sample.times.schedules import custom
from sfumato.seeds import noise

Keys = frozenset[tuple[int, int]]
"""Which draws something was made of, as `(seed, number)`."""


def check_apart(calibration: Keys, evaluation: Keys) -> None:
    """Refuse to judge on what was fitted to.

    Raises:
        ArgumentError: a draw is in both sets.
    """
    shared = sorted(calibration & evaluation)
    if shared:
        raise ArgumentError("seeds", f"{len(shared)} draws in both sets, first {shared[0]}", "draws that were not fitted on")


@dataclass(frozen=True)
class Starts:
    """Where paths start, `(batch, *event)`, and the draws they were made of."""

    process: ScalarProcess
    time: float
    states: Tensor
    keys: Keys

    @classmethod
    def prior(
        cls, process: ScalarProcess, event_shape: Sequence[int], n: int, seed: int, *, time: float = 1.0, dtype: torch.dtype = torch.float64
    ) -> Starts:
        """`n` draws of pure noise, as a `Sampler` would start from: the prior at `t = 1`, else `sigma_t eps`."""
        draws = noise(seed, n, event_shape, dtype=dtype)
        x = process.prior_sample(draws.draw(0)) if time == 1 else float(process.sigma(time)) * draws.draw(0)
        return cls(process, time, x, frozenset(draws.keys))

    @classmethod
    def marginal(cls, law: Law, process: ScalarProcess, time: float, n: int, seed: int) -> Starts:
        """`n` draws of the exact marginal at a time, `alpha_t x_0 + sigma_t eps`."""
        # draws 0 and 1 of a sample make its x_0
        draws = noise(seed, n, law.event_shape, dtype=law.dtype, device=law.device)
        return cls(process, time, process.sample(law.sample(n, seed), time, draws.draw(2)), frozenset(draws.keys))


@dataclass(frozen=True)
class Calibrated:
    """A fitted table.

    Arguments:
        program: the table.
        coefficients: what was fitted, one tuple a fitted row.
        fitted_on: the draws it must not be judged on.
    """

    program: Program
    coefficients: tuple[tuple[float, ...], ...]
    fitted_on: Keys

    def error(self, denoise: Denoise, starts: Starts, ends: Float[Tensor, "batch *event"]) -> float:
        """Root mean square distance of the program's ends to the flow's, from starts it was not fitted on.

        Raises:
            ArgumentError: starts that share draws with the calibration, or stand at another time or under another process.
        """
        check_apart(self.fitted_on, starts.keys)
        if (starts.process, starts.time) != (self.program.process, self.program.times[0]):
            raise ArgumentError(
                "starts", f"starts at t = {starts.time:g}", f"starts at t = {self.program.times[0]:g} of the program's process"
            )
        with torch.no_grad():
            return float((run(self.program, denoise, starts.states) - ends).square().mean().sqrt())


def subdivide(process: ScalarProcess, times: Sequence[float], parts: int, power: float = 7.0) -> tuple[float, ...]:
    """The same times with `parts - 1` more in every interval, equal in `k^(1/power)` (EDM's spacing); from an infinite ratio, in time.

    Raises:
        ArgumentError: less than one part, or times that are not a schedule.
    """
    times = custom(times)
    if parts < 1:
        raise ArgumentError("parts", parts, "at least 1 part an interval")
    share = torch.arange(1, parts, dtype=torch.float64) / parts
    out = [times[0]]
    for high, low in pairwise(times):
        top, end = (float(process.ratio(t)) ** (1 / power) for t in (high, low))
        inner = process.time_of_ratio((top + share * (end - top)) ** power) if top < float("inf") else high + share * (low - high)
        out += [*inner.tolist(), low]
    return custom(out)


def teach(denoise: Denoise, solver: Solver, starts: Starts, times: Sequence[float], parts: int = 10, power: float = 7.0) -> Trajectory:
    """The states at the given times of a solver that takes `parts` steps in every interval.

    Raises:
        ArgumentError: times that do not begin where the starts stand, or a solver that draws noise.
    """
    if times[0] != starts.time:
        raise ArgumentError("times", list(times), f"times from t = {starts.time:g}, where the starts stand")
    if not solver.deterministic:
        raise ArgumentError("solver", solver.name, "a deterministic solver to learn from")
    states: dict[float, Tensor] = {}

    def keep(event: Event) -> None:
        # a corrected state comes after the predicted one at the same time, and replaces it
        states[event.time] = event.state

    with torch.no_grad():
        run(solver.compile(starts.process, subdivide(starts.process, times, parts, power)), denoise, starts.states, None, keep)
    return Trajectory(starts.process, tuple(times), tuple(states[t] for t in times))
