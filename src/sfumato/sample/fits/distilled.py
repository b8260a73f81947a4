r"""Distilled solvers: one number an evaluation, fitted so that few steps meet the states of many.

A row of a solver goes along a direction: with `E` the noise and `D` the answer, and `h` its way in half log-SNR from the step's base `b`,

    data    X_i = (sigma_i / sigma_b) X_b + w P,   w = alpha_i (1 - exp(-h))       P a mean of answers
    noise   X_i = (alpha_i / alpha_b) X_b + w P,   w = -sigma_i (exp(h) - 1)       P a mean of noises

and D-ODE lets `P` run ahead along its own change, `P + lambda_i (P_new - P_old)`, where the change is taken between

    "evaluations"   the two newest answers (or noises): DDIM; the stages of Heun's method and of DPM-Solver-2S and -3S
    "directions"    this step's `P` and the last step's: iPNDM, DEIS, DPM-Solver++ multistep

with `lambda_i` the scalar least squares to a teacher's state at the same time, over a batch and all its numbers, in the order of the
rows and from the student's own states. Without a past there is no change and `lambda = 0`; in noise form the first change may
be taken from the start itself, `E_0 - X_0 / sigma_0`, as published.

Source: Kim, Tang & Yu 2023 (D-ODE, arXiv 2309.16421), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch

from sfumato.errors import ArgumentError
from sfumato.sample.compilers.extrapolation import Prediction
from sfumato.sample.fits.calibration import Calibrated, Starts, teach
from sfumato.sample.fits.reference import Trajectory
from sfumato.sample.fits.row_fit import Directions, Step, add, answer_at, fit_rows, noise_at, steps_of
from sfumato.sample.program import Program, Row
from sfumato.sample.run import Denoise
from sfumato.sample.solver import Solver

Change = Literal["evaluations", "directions"]
"""Between what the change is taken, see the module."""


def distil(
    denoise: Denoise,
    solver: Solver,
    starts: Starts,
    times: Sequence[float],
    *,
    prediction: Prediction = "data",
    change: Change = "evaluations",
    teacher: Trajectory | None = None,
    parts: int = 10,
    from_start: bool = False,
    ridge: float = 1e-10,
) -> Calibrated:
    """Fit a solver's table over given times to a teacher's states, see the module.

    Arguments:
        denoise: the denoiser, as it will be used.
        solver: any deterministic solver with a scalar table.
        starts: what to fit on.
        times: falling, from where the starts stand.
        prediction: the form in which the change is measured.
        change: between what it is taken.
        teacher: states at all of the program's times from the same starts; by default the solver's own with `parts` steps in every
            interval.
        from_start: whether the first change is taken from the start, in noise form.
        ridge: see `fit_rows`.

    Returns:
        The table, and one `lambda` for each fitted row.

    Raises:
        ArgumentError: a teacher of other times or starts, or what `changes` and `fit_rows` refuse.
    """
    program = solver.compile(starts.process, times)
    nodes = tuple(dict.fromkeys(program.times))
    path = teach(denoise, solver, starts, nodes, parts) if teacher is None else teacher
    states = dict(zip(path.times, path.states, strict=True))
    if not set(nodes) <= set(states) or not torch.equal(path.states[0], starts.states):
        raise ArgumentError("teacher", f"states at {len(states)} times", "states at all the program's times, from the same starts")
    directions = changes(program, times, prediction, change, from_start=from_start)
    return fit_rows(program, denoise, starts, directions, lambda i, _: states[program.times[i]], ridge)


def changes(
    program: Program,
    times: Sequence[float],
    prediction: Prediction = "data",
    change: Change = "evaluations",
    *,
    from_start: bool = False,
) -> Directions:
    """The direction `w (P_new - P_old)` of every row that has one, for a program compiled over the given times.

    Raises:
        ArgumentError: unknown words, `from_start` in data form, or noise form where the log-SNR is infinite.
    """
    for name, word, known in (("prediction", prediction, Prediction), ("change", change, Change)):
        if word not in get_args(known):
            raise ArgumentError(name, repr(word), f"one of {', '.join(get_args(known))}")
    if from_start and prediction == "data":
        raise ArgumentError("from_start", True, 'prediction="noise"', "The start is pure noise, and no answer.")
    steps, out = steps_of(program, times), dict[int, list[Row]]()
    for n, step in enumerate(steps):
        for i in step.rows:
            carry, weight = _closed_form(program, step.base, i, prediction)
            asked = [j for j in program.evaluated if j < i][::-1]
            if change == "directions" and n:
                new = add((1.0, program.rows[i]), (-carry, _state(step.base)))
                old = _direction(program, steps[n - 1], prediction)
                out[i] = [add((1.0, new), (-weight, old))]
            elif change == "evaluations" and len(asked) > 1:
                out[i] = [add((weight, _asked(program, asked[0], prediction)), (-weight, _asked(program, asked[1], prediction)))]
            elif from_start and len(asked) == 1:
                out[i] = [add((weight, noise_at(program, 0)), (-weight / float(program.levels[1][0]), _state(0)))]
    return out


def _direction(program: Program, step: Step, prediction: Prediction) -> Row:
    """The mean `P` of a step's last row."""
    carry, weight = _closed_form(program, step.base, step.end, prediction)
    return add((1 / weight, program.rows[step.end]), (-carry / weight, _state(step.base)))


def _closed_form(program: Program, base: int, row: int, prediction: Prediction) -> tuple[float, float]:
    """What a row makes of its base's state, and its weight `w`."""
    alpha, sigma = (level.tolist() for level in program.levels)
    t = torch.tensor([program.times[base], program.times[row]], dtype=torch.float64)
    h = float(program.process.half_log_snr(t).diff())
    if prediction == "data":
        return sigma[row] / sigma[base], -alpha[row] * math.expm1(-h)
    if not math.isfinite(h):
        raise ArgumentError("prediction", "noise", "data prediction at an infinite log-SNR")
    return alpha[row] / alpha[base], -sigma[row] * math.expm1(h)


def _asked(program: Program, j: int, prediction: Prediction) -> Row:
    return answer_at(j) if prediction == "data" else noise_at(program, j)


def _state(j: int) -> Row:
    return Row({j: torch.ones(1, dtype=torch.float64)})
