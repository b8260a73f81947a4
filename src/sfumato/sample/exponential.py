r"""Exponential multistep solvers: the closed form of a linearisation, and a polynomial through the residuals of past nodes.

With one evaluation a step. The predictor of order `p` interpolates through the `p` newest nodes; the optional corrector adds the node just
reached, with the answer given at the predicted point, and so raises the order by one at no further evaluation (Zhao et al. 2023,
arXiv 2302.04867, for data and noise prediction; the linearisations of `linearisation.py` make it one family).

The order ramps up from 1 as history fills. A start above the first evaluation is a *teleport*: the residual is dropped between `t_0` and
`t_1`, where the law explains the belief, and the state is carried by the closed form (Wang & Vastola 2024, arXiv 2412.09726).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.noise import ScalarProcess
from sfumato.sample.linearisation import Linearisation
from sfumato.sample.program import Program, Row
from sfumato.sample.schedules import custom
from sfumato.sample.solver import Solver


@dataclass(frozen=True)
class Exponential(Solver):
    """Multistep exponential integrator, see the module.

    Arguments:
        linearisation: what is solved in closed form.
        steps: the predictor's order, i.e. how many past answers it interpolates.
        corrector: whether a reached node is corrected with the answer given there.
        teleport: whether the first step is taken by the closed form alone, without an evaluation.
        label: a name of its own.
    """

    linearisation: Linearisation = field(default_factory=Linearisation.data)
    steps: int = 2
    corrector: bool = False
    teleport: bool = False
    label: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 6:
            raise ArgumentError("steps", self.steps, "an order from 1 to 6")

    @property
    def name(self) -> str:
        return self.label or f"exponential-{self.steps}{'c' if self.corrector else ''}"

    @property
    def order(self) -> int:
        return self.steps + self.corrector

    def compile(self, process: ScalarProcess, times: Sequence[float]) -> Program:
        return _Table(self, process, custom(times)).program()


@dataclass
class _Node:
    """An evaluated node: its place in the table and its level."""

    index: int
    alpha: float
    sigma: float
    half_log_snr: float


class _Table:
    """One compilation: walks the times and writes rows."""

    def __init__(self, solver: Exponential, process: ScalarProcess, times: tuple[float, ...]) -> None:
        self.solver, self.process, self.times = solver, process, times
        t = torch.tensor(times, dtype=torch.float64)
        self.alpha, self.sigma = process.alpha(t).tolist(), process.sigma(t).tolist()
        self.lam = process.half_log_snr(t).tolist()
        self.node_times, self.rows = [times[0]], [Row()]

    def program(self) -> Program:
        first = 0
        base = 0  # the row of the state that the next step starts from
        if self.solver.teleport:
            if len(self.times) < 3:
                raise ArgumentError(
                    "times", list(self.times), "at least three times with a teleport", "One step must be left to the denoiser."
                )
            base = self._append(1, {0: self._carry(0, 1)}, {})
            first = 1
        history = [self._node(base, first)]
        last = len(self.times) - 1
        for i in range(first + 1, last + 1):
            used = self._usable(history, self.solver.steps, i)
            new = self._append(i, *self._step(base, i - 1, i, used))
            if i == last:
                break
            history.append(self._node(new, i))
            if self.solver.corrector:
                used = self._usable(history, self.solver.steps + 1, i)
                new = self._append(i, *self._step(base, i - 1, i, used))
            base = new
        return Program(self.solver.name, self.process, tuple(self.node_times), tuple(self.rows), self.solver.linearisation.space)

    def _node(self, index: int, i: int) -> _Node:
        return _Node(index, self.alpha[i], self.sigma[i], self.lam[i])

    def _append(self, i: int, states: dict[int, Tensor], data: dict[int, Tensor]) -> int:
        self.node_times.append(self.times[i])
        self.rows.append(Row(states, data))
        return len(self.rows) - 1

    def _usable(self, history: list[_Node], order: int, i: int) -> list[_Node]:
        """The newest nodes, as many as the order asks; only the newest where an infinite log-SNR leaves nothing to interpolate over."""
        nodes = [n for n in history[-order:] if math.isfinite(n.half_log_snr)]
        return nodes if nodes and math.isfinite(self.lam[i]) else history[-1:]

    def _carry(self, a: int, b: int) -> Tensor:
        """The closed form's factor from level `a` to level `b`."""
        split = self.solver.linearisation
        return split.scale(self.alpha[b], self.sigma[b]) / split.scale(self.alpha[a], self.sigma[a])

    def _step(self, row: int, a: int, b: int, nodes: list[_Node]) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        split = self.solver.linearisation
        weights = split.weights(self.lam[a], self.lam[b], [n.half_log_snr for n in nodes], (self.alpha[b], self.sigma[b]))
        states, data = {row: self._carry(a, b)}, {}
        for node, w in zip(nodes, weights, strict=True):
            data[node.index] = w
            gain = split.gain(node.alpha, node.sigma)
            if bool((gain != 0).any()):
                states[node.index] = states.get(node.index, torch.zeros_like(w)) - w * gain
        return states, data
