r"""Rows of a program bent towards a goal: at every fitted row a few directions more, weighed by least squares.

    X_i = base_i + sum_k c_ik Q_ik,        min_c E |goal_i - X_i|^2 + ridge,        Q_ik = sum_j q_j X_j + sum_j p_j D_j

A direction is itself a row, i.e. a combination of earlier states and answers, so the result is again a table and costs no evaluation more
(unless a direction reads a node that was not asked about). Rows are fitted in order, each from the states that the fitted rows before it
have made: what a row is fitted on is what it will meet. This is the one engine behind `improved_integration` and `distil`, which differ
in their directions and in their goals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.sample.fits.calibration import Calibrated, Starts
from sfumato.sample.fits.least_squares import ridge_solve
from sfumato.sample.program import Coefficients, Program, Row
from sfumato.sample.run import Denoise

Directions = Mapping[int, Sequence[Row]]
"""Row number to the directions that it may use."""

Goal = Callable[[int, Sequence[Tensor]], Tensor]
"""`(row, the states of the rows before it) -> where the row should end`, `(batch, *event)`."""


class Step(NamedTuple):
    """One step of a solver: the row it starts from, and its own rows up to the one at the step's end."""

    base: int
    rows: range

    @property
    def end(self) -> int:
        """The row at the step's end."""
        return self.rows[-1]


def steps_of(program: Program, times: Sequence[float]) -> list[Step]:
    """The steps between the times that a program was compiled for; inner nodes and predictions are rows inside of them."""
    ends = [max(i for i, t in enumerate(program.times) if t == time) for time in times]
    return [Step(a, range(a + 1, b + 1)) for a, b in pairwise(ends)]


def noise_at(program: Program, j: int) -> Row:
    """The predicted noise `(X_j - alpha_j D_j) / sigma_j` as a row."""
    alpha, sigma = (level[j : j + 1] for level in program.levels)
    return Row({j: 1 / sigma}, {j: -alpha / sigma})


def answer_at(j: int) -> Row:
    """The answer `D_j` as a row."""
    return Row({}, {j: torch.ones(1, dtype=torch.float64)})


def add(*terms: tuple[float | Tensor, Row]) -> Row:
    """A weighted sum of rows."""
    out: tuple[dict[int, Tensor], ...] = ({}, {}, {})
    for weight, row in terms:
        for total, (_, part) in zip(out, row.parts(), strict=True):
            for j, c in part.items():
                total[j] = total.get(j, torch.zeros_like(c)) + weight * c
    return Row(*({j: c for j, c in total.items() if bool((c != 0).any())} for total in out))


def fit_rows(program: Program, denoise: Denoise, starts: Starts, directions: Directions, goal: Goal, ridge: float = 1e-10) -> Calibrated:
    """Fit a program's rows, see the module.

    Arguments:
        program: the table to start from; scalar and deterministic.
        denoise: asked once a node.
        starts: what to fit on.
        directions: of the rows to fit.
        goal: asked for each of them, in order.
        ridge: pull towards the unfitted row, relative to each direction's size.

    Raises:
        ArgumentError: a spectral or stochastic program, a ridge below 0, too few numbers for the unknowns of a row, or a goal that is not
            finite.
    """
    if program.space is not None or program.draws:
        raise ArgumentError("program", program.name, "a scalar deterministic program", "`fit_program` fits spectral ones.")
    if not ridge >= 0:
        raise ArgumentError("ridge", ridge, "a strength of at least 0")
    most = max((len(d) for d in directions.values()), default=0)
    if starts.states.numel() <= most:
        raise ArgumentError("starts", f"{starts.states.numel()} numbers", f"more than the {most} unknowns of a row")
    read = {j for parts in directions.values() for row in parts for j in row.data}.union(program.evaluated)
    states, answers = [starts.states], dict[int, Tensor]()
    fitted = list[tuple[float, ...]]()
    with torch.no_grad():
        for i, row in enumerate(program.rows[1:], start=1):
            if i - 1 in read:
                answers[i - 1] = denoise(states[-1], program.times[i - 1])
            value = combined(row, states, answers)
            if i in directions:
                used = directions[i]
                parts = [combined(part, states, answers) for part in used]
                coefficients = _regress(parts, goal(i, states) - value, ridge)
                value = value + sum(c * part for c, part in zip(coefficients, parts, strict=True))
                fitted.append(tuple(coefficients))
            states.append(value)
    return Calibrated(bend(program, directions, fitted, f"{program.name}-fitted"), tuple(fitted), starts.keys)


def bend(program: Program, directions: Directions, coefficients: Sequence[Sequence[float]], name: str = "") -> Program:
    """The program with given coefficients on the directions of its rows: what `fit_rows` makes of the ones it found.

    Raises:
        ArgumentError: not one coefficient for each direction.
    """
    given, needed = [len(c) for c in coefficients], [len(directions[i]) for i in sorted(directions)]
    if given != needed:
        raise ArgumentError("coefficients", f"{given} numbers a row", f"{needed}, one a direction")
    rows = list(program.rows)
    for i, weights in zip(sorted(directions), coefficients, strict=True):
        rows[i] = add((1.0, rows[i]), *zip(weights, directions[i], strict=True))
    return Program(name or f"{program.name}-bent", program.process, program.times, tuple(rows))


def combined(row: Row, states: Sequence[Tensor], answers: Mapping[int, Tensor]) -> Tensor:
    """The value of a row without noise."""
    out = torch.zeros_like(states[0])
    lookups: tuple[tuple[Coefficients, Sequence[Tensor] | Mapping[int, Tensor]], ...] = ((row.states, states), (row.data, answers))
    for part, values in lookups:
        for j, c in part.items():
            out = out + float(c) * values[j]
    return out


def _regress(parts: Sequence[Tensor], missing: Tensor, ridge: float) -> list[float]:
    flat = torch.stack([p.reshape(-1) for p in parts]).to(torch.float64)
    if not bool(torch.isfinite(missing).all() & torch.isfinite(flat).all()):
        raise ArgumentError("goal", "NaN or infinities", "finite states to fit to")
    return ridge_solve(flat @ flat.T, flat @ missing.reshape(-1).to(torch.float64), ridge).tolist()
