r"""Improved integration approximation: keep a solver's structure, fit its few coefficients a step to a fine integration of that step.

Walking along the student's own states, step `i` has the goal where `parts` fine steps of the same method lead from the student's state, and
the directions (`r = history`; `E` noise, `D` answers, `Delta` what the unfitted step adds to its starting state)

    "steps"      Delta_i, ..., Delta_{i-r}                                    BIIA: how far to go along this step and past ones
    "answers"    E_n, D_n - D_{n-1}, ..., D_{n-r} - D_{n-r-1}                  IIA-DDIM; `n` the newest evaluation
    "stages"     E_b, D_b - D' of this step and of the last `r`                IIA-EDM: the two vectors of Heun's method
    "data"       D_n, D_n - D_{n-1}, ..., D_{n-r} - D_{n-r-1}                  as published for DPM-Solver++(2M)

With `parts = 1` the fit returns a one-step solver itself. "answers" with `history = 0` is the single vector used under guidance. All
but "data" keep a constant answer constant. Coefficients are the *changes* to the solver's own. They belong to the denoiser (with its
guidance scale) and the times they were fitted with.

Source: Zhang, Niwa & Kleijn 2024 (arXiv 2304.11328). Which past vectors the paper uses for DDIM and DPM-Solver++ is reconstructed; the
ridge and the written-out table are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.sample.fits.calibration import Calibrated, Starts, subdivide
from sfumato.sample.fits.row_fit import Directions, Step, add, answer_at, fit_rows, noise_at, steps_of
from sfumato.sample.program import Program, Row
from sfumato.sample.run import Denoise, run
from sfumato.sample.solver import Solver

Basis = Literal["steps", "answers", "stages", "data"]
"""Along which directions a step is corrected, see the module."""


def improved_integration(
    denoise: Denoise,
    solver: Solver,
    starts: Starts,
    times: Sequence[float],
    basis: Basis = "answers",
    *,
    history: int = 1,
    parts: int = 5,
    ridge: float = 1e-10,
) -> Calibrated:
    """Fit a solver's table over given times to its own fine steps, see the module.

    Arguments:
        denoise: the denoiser, as it will be used.
        solver: any deterministic solver with a scalar table.
        starts: what to fit on; 16 to 100 are usual.
        times: falling, from where the starts stand.
        basis, history: the directions; past ones are left out as long as there are none.
        parts: fine steps that make a step's goal.
        ridge: see `fit_rows`.

    Raises:
        ArgumentError: times that do not start where the starts stand, or what `corrections` and `fit_rows` refuse.
    """
    if times[0] != starts.time:
        raise ArgumentError("times", list(times), f"times from t = {starts.time:g}, where the starts stand")
    program = solver.compile(starts.process, times)
    base = {step.end: step.base for step in steps_of(program, times)}

    def goal(row: int, states: Sequence[Tensor]) -> Tensor:
        fine = subdivide(starts.process, (program.times[base[row]], program.times[row]), parts)
        return run(solver.compile(starts.process, fine), denoise, states[base[row]])

    return fit_rows(program, denoise, starts, corrections(program, times, basis, history), goal, ridge)


def corrections(program: Program, times: Sequence[float], basis: Basis, history: int = 1) -> Directions:
    """The directions of every step's last row, for a program compiled over the given times.

    Raises:
        ArgumentError: an unknown basis, a history below 0, or "stages" for a solver without two evaluations a step.
    """
    if basis not in get_args(Basis):
        raise ArgumentError("basis", repr(basis), f"one of {', '.join(get_args(Basis))}")
    if history < 0:
        raise ArgumentError("history", history, "at least 0 past steps")
    steps = steps_of(program, times)
    return {step.end: _directions(program, steps[: n + 1], basis, history) for n, step in enumerate(steps)}


def _directions(program: Program, steps: Sequence[Step], basis: Basis, history: int) -> list[Row]:
    """The directions of the last of the given steps."""
    recent = steps[::-1][: history + 1]
    if basis == "steps":
        return [add((1.0, program.rows[s.end]), (-1.0, Row({s.base: torch.ones(1, dtype=torch.float64)}))) for s in recent]
    if basis == "stages":
        return [row for s in recent for row in _stages(program, s)]
    asked = [j for j in program.evaluated if j < steps[-1].end][::-1]
    first = noise_at(program, asked[0]) if basis == "answers" else answer_at(asked[0])
    return [first, *(_change(a, b) for a, b in pairwise(asked[: history + 1]))]


def _stages(program: Program, step: Step) -> list[Row]:
    inner = [j for j in step.rows[:-1] if j in program.evaluated]
    if len(inner) > 1 or (not inner and len(step.rows) > 1):
        raise ArgumentError("basis", "stages", "a solver of two evaluations a step, like Heun's method")
    return [noise_at(program, step.base), *(_change(step.base, j) for j in inner)]


def _change(a: int, b: int) -> Row:
    """`D_a - D_b`."""
    return add((1.0, answer_at(a)), (-1.0, answer_at(b)))
