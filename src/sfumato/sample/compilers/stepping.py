"""A table in the making: exponential steps between levels, written row by row. All exponential solvers are compiled with it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sfumato.exact.laws.gaussian import Gaussian
from sfumato.noise import ScalarProcess
from sfumato.sample.compilers.linearisation import Linearisation
from sfumato.sample.program import Program, Row

Scale = Literal["log-ratio", "ratio", "time"]
"""In what a step is measured: `log k`, `k` or `t`."""


@dataclass(frozen=True)
class Node:
    """An evaluated node: its row in the table, and its level."""

    row: int
    alpha: float
    sigma: float
    half_log_snr: float


def newest(history: Sequence[Node], count: int, split: Linearisation, end: float) -> Sequence[Node]:
    """The last `count` nodes of a history; only the last where an infinite log-SNR leaves nothing to interpolate over."""
    nodes = [n for n in history[-count:] if math.isfinite(n.half_log_snr)]
    return nodes if nodes and split.interpolates_to(end) else history[-1:]


class StepTable:
    """Rows over given times; a time may get several rows (a prediction and its correction).

    Arguments:
        process: the process.
        times: the falling times that steps refer to by their place.
    """

    def __init__(self, process: ScalarProcess, times: tuple[float, ...]) -> None:
        self.process, self.times = process, list(times)
        t = torch.tensor(times, dtype=torch.float64)
        self.alpha, self.sigma = process.alpha(t).tolist(), process.sigma(t).tolist()
        self.half_log_snr = process.half_log_snr(t).tolist()
        self._rows, self._row_times = [Row()], [times[0]]

    def between(self, a: int, b: int, share: int | float, scale: Scale) -> int:
        """The place of a new time, so far on the way from time number `a` to number `b`; of `b` itself for a share of 1."""
        if share == 1:
            return b
        if scale == "time":
            t = self.times[a] + share * (self.times[b] - self.times[a])
            middle = float(self.process.half_log_snr(t))
        else:
            low, high = ((v if scale == "log-ratio" else math.exp(-v)) for v in (self.half_log_snr[a], self.half_log_snr[b]))
            middle = low + share * (high - low)
            middle = middle if scale == "log-ratio" else -math.log(middle)
            t = float(self.process.time(middle))
        alpha, sigma = self.process.levels(t)
        self.times.append(t)
        self.alpha.append(float(alpha))
        self.sigma.append(float(sigma))
        self.half_log_snr.append(middle)
        return len(self.times) - 1

    def finite(self, a: int, b: int) -> bool:
        """Whether the log-SNR is finite at both of two times."""
        return math.isfinite(self.half_log_snr[a]) and math.isfinite(self.half_log_snr[b])

    def node(self, row: int, i: int) -> Node:
        """The node of a row that stands at time number `i`."""
        return Node(row, self.alpha[i], self.sigma[i], self.half_log_snr[i])

    def carry(self, split: Linearisation, row: int, a: int, b: int) -> int:
        """A new row at time `b`: the closed form alone carries the row's state there from time `a`."""
        return self.add(b, Row({row: self.factor(split, a, b)}))

    def step(self, split: Linearisation, row: int, a: int, b: int, nodes: Sequence[Node]) -> int:
        """A new row at time `b`: the exponential step from the row's state at time `a`, through the nodes' residuals."""
        weights = split.weights(self.half_log_snr[a], self.half_log_snr[b], [n.half_log_snr for n in nodes], (self.alpha[b], self.sigma[b]))
        return self.combine(split, row, a, b, nodes, weights)

    def combine(
        self,
        split: Linearisation,
        row: int,
        a: int,
        b: int,
        nodes: Sequence[Node],
        weights: Sequence[Tensor] | Tensor,
        also: Mapping[int, Tensor] | None = None,
    ) -> int:
        """A new row at time `b`: `(s_b / s_a) X + sum_n w_n (D_n - gamma_n X_n)`, and `also` so much of the states of other rows."""
        states, data = {row: self.factor(split, a, b)}, {}
        for j, more in (also or {}).items():
            states[j] = states.get(j, torch.zeros_like(more)) + more
        for node, w in zip(nodes, weights, strict=True):
            data[node.row] = w
            gain = split.gain(node.alpha, node.sigma)
            if bool((gain != 0).any()):
                states[node.row] = states.get(node.row, torch.zeros_like(w)) - w * gain
        return self.add(b, Row(states, data))

    def add(self, i: int, row: Row) -> int:
        """A new row at time `i`, given whole."""
        self._rows.append(row)
        self._row_times.append(self.times[i])
        return len(self._rows) - 1

    def program(self, name: str, space: Gaussian | None = None) -> Program:
        """The finished table."""
        return Program(name, self.process, tuple(self._row_times), tuple(self._rows), space)

    def factor(self, split: Linearisation, a: int, b: int) -> Tensor:
        """`s_b / s_a` per mode: what the closed form makes of a state."""
        return split.scale(self.alpha[b], self.sigma[b]) / split.scale(self.alpha[a], self.sigma[a])
