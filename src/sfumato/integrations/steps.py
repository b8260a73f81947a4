"""The times that a pipeline's number of steps stands for, and a solver's program over them."""

from __future__ import annotations

import math
from typing import Literal

from sfumato.errors import ArgumentError
from sfumato.integrations.training import Training
from sfumato.sample import Program, Solver
from sfumato.sample.times.schedules import custom, karras, uniform_log_snr, uniform_time

Grid = Literal["log-snr", "karras", "time"]
"""Steps equal in log-SNR, in the 7th root of the noise-to-signal ratio, or in time."""

_TOP = 1 - 1e-3  # where a process that ends in pure noise is entered: its state is still noise to 1e-3


def steps(training: Training, grid: str, n: int) -> tuple[float, ...]:
    """`n` steps from noise to clean data. The last evaluation is at `Training.least_ratio`, unless steps are equal in time.

    Raises:
        ArgumentError: fewer than one step.
    """
    process = training.process
    top = 1.0 if math.isfinite(float(process.half_log_snr(1.0))) else _TOP
    if grid == "time":
        return uniform_time(n)
    if grid == "karras":
        return karras(process, n, ratio_max=float(process.ratio(top)), ratio_min=training.least_ratio)
    return uniform_log_snr(process, n, start=top, t_min=float(process.time_of_ratio(training.least_ratio)))


def program_over(solver: Solver, training: Training, times: tuple[float, ...]) -> tuple[Program, tuple[float, ...]]:
    """The solver's program over the times, and the times it took: it enters just below an end without signal that it, or a prediction of
    noise, cannot use.

    Raises:
        ArgumentError: times that do not fall, or that the solver cannot use.
    """
    times = custom(times)
    below = (_TOP, *times[1:])
    enters = float(training.process.alpha(times[0])) == 0 and times[1] < _TOP
    if enters and training.view == "noise":
        return solver.compile(training.process, below), below
    try:
        return solver.compile(training.process, times), times
    except ArgumentError:
        if not enters:
            raise
        return solver.compile(training.process, below), below
