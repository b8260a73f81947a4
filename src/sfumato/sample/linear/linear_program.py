r"""Samplers under any linear SDE are tables, too: as `sample.program`, with operators for coefficients.

    X_i = sum_{j<i} A_ij X_j + sum_{j<i} B_ij D_j + sum_j C_ij eps_j + c_i y,        D_j = E[x_0 | state X_j at time t_j].

States are `(batch, K, *event)`, or `(batch, *event)` for one channel; beliefs and `y` are `(batch, *event)`, without auxiliary channels.
A node that no row asks about costs no evaluation. A scalar process has its own, plainer `Program`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sfumato.errors import ArgumentError, RecipeError
from sfumato.noise import LinearSDE, Operator
from sfumato.sample.linear.linear_form import Form, Forms, plus
from sfumato.sample.run import Denoise, Draws
from sfumato.sample.table import Table

Terms = Mapping[int, Operator]
"""Node (or draw) number to operator."""


@dataclass(frozen=True, eq=False)
class LinearRow:
    """One row: `A_i.`, `B_i.`, `C_i.` and `c_i` of the module's formula."""

    states: Terms = field(default_factory=dict)
    data: Terms = field(default_factory=dict)
    noise: Terms = field(default_factory=dict)
    shift: Operator | None = None


@dataclass(frozen=True, eq=False)
class LinearProgram(Table):
    """A sampler's table, checked when it is made.

    Arguments:
        name: what the program is called.
        process: any member of the linear SDE family.
        times: the nodes `t_0, ..., t_N`, never rising.
        rows: one row per node; the first is empty, since `X_0` is given.

    Raises:
        RecipeError: rising times, or a row that looks ahead.
    """

    name: str
    process: LinearSDE
    times: tuple[float, ...]
    rows: tuple[LinearRow, ...]

    def __post_init__(self) -> None:
        self.check_times()
        for i, row in enumerate(self.rows):
            if not all(0 <= j < i for j in (*row.states, *row.data)) or min(row.noise, default=1) < 1:
                raise RecipeError(f"rows[{i}]", sorted((*row.states, *row.data, *row.noise)), f"earlier nodes than {i}, draws from 1")

    def denoised(self) -> LinearProgram:
        """The program with one more step, the mean of an Euler-Maruyama step from its last time to 0."""
        last = len(self.rows) - 1
        t = self.times[last]
        forms = Forms(self.process, [t])
        step = Form(forms.one) + forms.reverse(t, 1.0).scaled(-t)
        table = LinearTable(self.process, self.times, self.rows)
        table.add(0.0, {last: step})
        return table.program(f"{self.name}, denoised")


class LinearTable:
    """A program in the making: rows are added, and numbered, one by one."""

    def __init__(self, process: LinearSDE, times: Sequence[float], rows: Sequence[LinearRow] = (LinearRow(),)) -> None:
        self.process, self.times, self.rows = process, list(times), list(rows)
        self.used = max((j for row in rows for j in row.noise), default=0)

    def add(self, time: float, forms: Mapping[int, Form], noise: Operator | None = None) -> int:
        """A new row at a time: the sum of forms in the states and beliefs of earlier nodes, and of `noise` times the next draw."""
        shift = None
        for form in forms.values():
            shift = plus(shift, form.shift)
        states = {j: form.state for j, form in forms.items() if form.state is not None}
        data = {j: form.data for j, form in forms.items() if form.data is not None}
        self.used += noise is not None
        self.times.append(time)
        self.rows.append(LinearRow(states, data, {} if noise is None else {self.used: noise}, shift))
        return len(self.rows) - 1

    def program(self, name: str) -> LinearProgram:
        """The finished table."""
        return LinearProgram(name, self.process, tuple(self.times), tuple(self.rows))


class LinearSolver(ABC):
    """A compiler from times to a program under any member; a frozen dataclass of its options."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is called."""

    @abstractmethod
    def compile(self, process: LinearSDE, times: Sequence[float]) -> LinearProgram:
        """The program over falling times.

        Raises:
            ArgumentError: times that do not fall strictly, or at which the process is singular where the solver needs it not to be.
        """


def run_linear(program: LinearProgram, denoise: Denoise, x: Tensor, draws: Draws | None = None, condition: Tensor | None = None) -> Tensor:
    """Walk a program from the states `x` at its first node and return the states at its last.

    Arguments:
        denoise: `(states, t) -> E[x_0 | state]`, `(batch, *event)`; it knows the process's condition, if there is one.
        x: the start, whose dtype and device the walk keeps.
        draws: the noise, shaped as the states, for a stochastic program.
        condition: the process's `y`, `(batch or 1, *event)`.

    Raises:
        ArgumentError: a stochastic program without draws, or a condition that is missing or not asked for.
    """
    rows = program.rows
    if program.draws and draws is None:
        raise ArgumentError("draws", None, f"noise for the {len(program.draws)} draws of the stochastic program {program.name}")
    if any(row.shift is not None for row in rows) != (condition is not None):
        expected = "a tensor (batch, *event)" if condition is None else "none, as the program has no condition"
        raise ArgumentError("condition", "none" if condition is None else tuple(condition.shape), expected)
    state_readers, data_readers = (
        [max((i for i, row in enumerate(rows) if j in part(row)), default=-1) for j in range(len(rows))] for part in (_states, _data)
    )
    states, answers = {0: x}, dict[int, Tensor]()
    asked = set(program.evaluated)
    for i, row in enumerate(rows):
        if i:
            x = _row(row, states, answers, draws, condition, x)
            states[i] = x
            for kept, readers in ((states, state_readers), (answers, data_readers)):
                for j in [j for j in kept if j < i and readers[j] <= i]:
                    del kept[j]
        if i in asked:
            answers[i] = denoise(x, program.times[i])
    return x


def _states(row: LinearRow) -> Terms:
    return row.states


def _data(row: LinearRow) -> Terms:
    return row.data


def _row(
    row: LinearRow, states: Mapping[int, Tensor], answers: Mapping[int, Tensor], draws: Draws | None, condition: Tensor | None, like: Tensor
) -> Tensor:
    terms = [(op, states[j]) for j, op in row.states.items()] + [(op, answers[j]) for j, op in row.data.items()]
    if draws is not None:
        terms += [(op, draws.draw(j)) for j, op in row.noise.items()]
    if row.shift is not None and condition is not None:
        terms.append((row.shift, condition))
    out: Tensor | None = None
    for op, value in terms:
        if op.coef.numel() == 1 and value.shape == like.shape:
            # a plain number costs one fused multiply-add
            number = float(op.coef)
            out = value * number if out is None else out.add_(value, alpha=number)
        else:
            term = op.apply(value)
            out = term if out is None else out + term
    return torch.zeros_like(like) if out is None else out
