r"""The table route: a member given by its marginals `x_t | x_0 ~ N(A(t) x_0 + b(t) y, S(t))`, as noise schedules are written.

With square and invertible `A`,

    Phi = A(t) A(s)^{-1},   O = b(t) - Phi b(s),   S(t, s) = S(t) - Phi S(s) Phi^T,
    F = A' A^{-1},          C = b' - F b,          Q = S' - F S - S F^T,

with derivatives by automatic differentiation. The variance of a transition is a difference: relative to `S(t)` it is exact to rounding.
It is not `S` at the elapsed time, unless the process is homogeneous in time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.noise.linear_family.basis import Basis
from sfumato.noise.linear_family.linear_sde import LinearSDE
from sfumato.noise.linear_family.van_loan import Coefs


class TableSDE(LinearSDE):
    """A member given by its marginals.

    Arguments:
        table: `t -> (A, b, S)` for float64 times of any shape, `(*times, n, K, K)`, differentiable; `b` has a column per condition,
        `S(0)` is the
            covariance of the start.
        channels, conditions: `K`, and 1 if there is a condition.
        basis, prior: see `LinearSDE`.

    Raises:
        ArgumentError: `A(0)` is not the identity: `x_0` would not be the data.
    """

    def __init__(
        self,
        table: Callable[[Tensor], Coefs],
        channels: int = 1,
        conditions: int = 0,
        *,
        basis: Basis | None = None,
        prior: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        signal, _, spread = table(torch.zeros((), dtype=torch.float64))
        off = float((signal - torch.eye(signal.shape[-1], dtype=torch.float64)).detach().abs().max())
        if not off <= 1e-9:
            raise ArgumentError("table", f"A(0) - 1 up to {off:.3g}", "A(0) = 1", "Clean data are at t = 0.")
        super().__init__(channels, conditions, basis=basis, start=spread.detach(), prior=prior)
        self._table = table

    def _coefs(self, t: Tensor) -> Coefs:
        derived: Any = torch.func.jvp(self._table, (t,), (torch.ones_like(t),))
        (signal, gain, spread), (d_signal, d_gain, d_spread) = derived
        drift = torch.linalg.solve(signal, d_signal, left=False)
        half = drift @ spread
        return drift, d_gain - drift @ gain, d_spread - half - half.mT

    def _transition(self, s: Tensor, t: Tensor) -> Coefs:
        (before, gain_before, spread_before), (signal, gain, spread) = self._table(s), self._table(t)
        phi = torch.linalg.solve(before, signal, left=False)
        left = spread - phi @ spread_before @ phi.mT
        if left.shape[-1] == 1:
            # below 0 only by rounding
            left = left.clamp(min=0)
        same = (s == t)[..., None, None, None]
        return phi, gain - phi @ gain_before, torch.where(same, 0.0, left)
