r"""High-accuracy trajectories of the probability flow: what fast samplers are measured against and fitted to."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.exact.laws.gaussian import Gaussian
from sfumato.noise import ScalarProcess
from sfumato.sample.compilers.exponential import Exponential
from sfumato.sample.compilers.linearisation import Linearisation
from sfumato.sample.run import Denoise, Event, run


@dataclass(frozen=True)
class Trajectory:
    """The flow's states at falling times, from noise at `times[0]` to data at `times[-1]`; each state is `(batch, *event)`."""

    process: ScalarProcess
    times: tuple[float, ...]
    states: tuple[Tensor, ...]

    @property
    def end(self) -> Tensor:
        """The samples."""
        return self.states[-1]

    def __getitem__(self, rows: slice) -> Trajectory:
        return Trajectory(self.process, self.times, tuple(x[rows] for x in self.states))


def reference_times(process: ScalarProcess, steps: int, ratio_min: float = 2e-3, ratio_max: float = 200.0) -> tuple[float, ...]:
    """`steps` steps from `t = 1`, equal in log-SNR down to the ratio `ratio_min`, the last one to `t = 0`.

    A process whose last ratio is infinite enters the grid at `ratio_max` with its first step.

    Raises:
        ArgumentError: fewer than 4 steps.
    """
    if steps < 4:
        raise ArgumentError("steps", steps, "at least 4 steps")
    last = float(process.half_log_snr(1.0))
    infinite = not math.isfinite(last)
    first = -math.log(ratio_max) if infinite else last
    count = steps - infinite
    lam = torch.linspace(first, -math.log(ratio_min), count, dtype=torch.float64)
    times = process.time(lam).tolist()
    return (1.0, *(times if infinite else times[1:]), 0.0)


def reference(denoise: Denoise, x: Tensor, process: ScalarProcess, law: Gaussian, times: tuple[float, ...]) -> Trajectory:
    """The flow from `x` at `times[0]`, by the Gaussian exponential integrator of order 4: one evaluation a step.

    Arguments:
        denoise: the denoiser.
        x: `(batch, *event)`.
        process: the process.
        law: the Gaussian whose flow is solved in closed form; any will do for accuracy, the data's own is the most efficient.
        times: e.g. `reference_times(process, 80)`.
    """
    program = Exponential(Linearisation.gaussian(law, 0.5), steps=3, corrector=True).compile(process, times)
    states = {times[0]: x}

    def keep(event: Event) -> None:
        # a corrected state comes after the predicted one at the same time, and replaces it
        states[event.time] = event.state

    with torch.no_grad():
        run(program, denoise, x, None, keep)
    return Trajectory(process, times, tuple(states[t] for t in times))
