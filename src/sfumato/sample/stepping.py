"""A table in the making: exponential steps between levels, written row by row. All exponential solvers are compiled with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.exact.gaussian import Gaussian
from sfumato.noise import ScalarProcess
from sfumato.sample.linearisation import Linearisation
from sfumato.sample.program import Program, Row


@dataclass(frozen=True)
class Node:
    """An evaluated node: its row in the table, and its level."""

    row: int
    alpha: float
    sigma: float
    half_log_snr: float


class StepTable:
    """Rows over given times; a time may get several rows (a prediction and its correction).

    Arguments:
        process: the process.
        times: the falling times that steps refer to by their place.
    """

    def __init__(self, process: ScalarProcess, times: tuple[float, ...]) -> None:
        self.process, self.times = process, times
        t = torch.tensor(times, dtype=torch.float64)
        self.alpha, self.sigma = process.alpha(t).tolist(), process.sigma(t).tolist()
        self.half_log_snr = process.half_log_snr(t).tolist()
        self._rows, self._row_times = [Row()], [times[0]]

    def node(self, row: int, i: int) -> Node:
        """The node of a row that stands at time number `i`."""
        return Node(row, self.alpha[i], self.sigma[i], self.half_log_snr[i])

    def carry(self, split: Linearisation, row: int, a: int, b: int) -> int:
        """A new row at time `b`: the closed form alone carries the row's state there from time `a`."""
        return self._append(b, Row({row: self._factor(split, a, b)}))

    def step(self, split: Linearisation, row: int, a: int, b: int, nodes: Sequence[Node]) -> int:
        """A new row at time `b`: the exponential step from the row's state at time `a`, through the nodes' residuals."""
        weights = split.weights(self.half_log_snr[a], self.half_log_snr[b], [n.half_log_snr for n in nodes], (self.alpha[b], self.sigma[b]))
        states, data = {row: self._factor(split, a, b)}, {}
        for node, w in zip(nodes, weights, strict=True):
            data[node.row] = w
            gain = split.gain(node.alpha, node.sigma)
            if bool((gain != 0).any()):
                states[node.row] = states.get(node.row, torch.zeros_like(w)) - w * gain
        return self._append(b, Row(states, data))

    def program(self, name: str, space: Gaussian | None = None) -> Program:
        """The finished table."""
        return Program(name, self.process, tuple(self._row_times), tuple(self._rows), space)

    def _factor(self, split: Linearisation, a: int, b: int) -> Tensor:
        return split.scale(self.alpha[b], self.sigma[b]) / split.scale(self.alpha[a], self.sigma[a])

    def _append(self, i: int, row: Row) -> int:
        self._rows.append(row)
        self._row_times.append(self.times[i])
        return len(self._rows) - 1
