r"""The grid route: any `F(t)`, `C(t)`, `Q(t)`, by Magnus steps on cells of `[s, t]`.

A step replaces the coefficients of a cell by constant ones: their value in the middle (order 2), or, with two Gauss nodes and a commutator,
such that the error is of order 4. Cells are composed pairwise, which adds positive semi-definite matrices and is differentiable in every
parameter of the coefficients. Source: Blanes, Casas, Oteo & Ros 2009 (Physics Reports 470, 151), section 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.noise.linear_family.basis import Basis
from sfumato.noise.linear_family.linear_sde import LinearSDE
from sfumato.noise.linear_family.van_loan import Coefs, compose, constant_transition

_GAUSS = (0.5 - math.sqrt(3) / 6, 0.5 + math.sqrt(3) / 6)


class GridSDE(LinearSDE):
    """A member given by its coefficients as functions of time.

    Arguments:
        coefs: `t -> (F, C, Q)` for float64 times of any shape, `(*times, n, K, K)`; `C` has as many columns as there are `conditions`.
        channels, conditions: `K`, and 1 if there is a condition.
        cells: how many cells `[s, t]` is cut into.
        order: 2 or 4.
        singular: a time in (0, 1] at which the coefficients diverge, towards which cells shrink; None for no such time.
        basis, start, prior: see `LinearSDE`.

    Raises:
        ArgumentError: another order, no cell.
    """

    def __init__(
        self,
        coefs: Callable[[Tensor], Coefs],
        channels: int = 1,
        conditions: int = 0,
        *,
        cells: int = 256,
        order: int = 4,
        singular: int | float | None = None,
        basis: Basis | None = None,
        start: Tensor | None = None,
        prior: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        if cells < 1 or order not in (2, 4):
            raise ArgumentError("cells, order", (cells, order), "at least one cell, order 2 or 4")
        super().__init__(channels, conditions, basis=basis, start=start, prior=prior)
        self.cells, self.order, self.singular = cells, order, singular
        self._given = coefs

    def _coefs(self, t: Tensor) -> Coefs:
        return self._given(t)

    def _edges(self, s: Tensor, t: Tensor) -> Tensor:
        part = torch.linspace(0, 1, self.cells + 1, dtype=torch.float64, device=t.device)
        if self.singular is None:
            return s[..., None] + (t - s)[..., None] * part
        # equal in the logarithm of the distance to the singular time
        ahead = torch.log((self.singular - t) / (self.singular - s))[..., None]
        return s[..., None] - (self.singular - s)[..., None] * torch.expm1(ahead * part)

    def _transition(self, s: Tensor, t: Tensor) -> Coefs:
        if self.singular is not None and bool((t >= self.singular).any()):
            raise ArgumentError("t", float(t.max()), f"times before {self.singular}, where the coefficients diverge")
        if self.singular is None and not bool(s.any()):
            return self._from_clean(t)
        edges = self._edges(s, t)
        left, width = edges[..., :-1], edges[..., 1:] - edges[..., :-1]
        cells = constant_transition(*self._mean_coefs(left, width))
        phi, gain, spread = (c.movedim(-4, 0) for c in cells)
        steps = phi, gain, spread
        while len(steps[0]) > 1:
            even = len(steps[0]) // 2 * 2
            joined = compose(_sliced(steps, slice(0, even, 2)), _sliced(steps, slice(1, even, 2)))
            steps = _joined(joined, _sliced(steps, slice(even, None)))
        return steps[0][0], steps[1][0], steps[2][0]

    def _from_clean(self, t: Tensor) -> Coefs:
        """From 0 to any number of times: one pass over fixed cells of [0, 1], and a part of a cell for each time."""
        edges = torch.linspace(0, 1, self.cells + 1, dtype=torch.float64, device=t.device)
        ends = constant_transition(*self._mean_coefs(edges[:-1], edges.diff()))
        reach = 1
        while reach < self.cells:
            joined = compose(_sliced(ends, slice(None, -reach)), _sliced(ends, slice(reach, None)))
            ends = _joined(_sliced(ends, slice(None, reach)), joined)
            reach *= 2
        phi, gain, spread = _sliced(ends, slice(None, 1))
        still = torch.eye(phi.shape[-1], dtype=phi.dtype, device=phi.device).expand_as(phi), 0 * gain, 0 * spread
        cell = (t * self.cells).floor().clamp(max=self.cells - 1).long()
        rest = constant_transition(*self._mean_coefs(edges[cell], t - edges[cell]))
        phi, gain, spread = _joined(still, ends)
        return compose((phi[cell], gain[cell], spread[cell]), rest)

    def _mean_coefs(self, left: Tensor, width: Tensor) -> Coefs:
        """The constant coefficients that stand for each cell, times its width."""
        h = width[..., None, None, None]
        if self.order == 2:
            drift, gain, noise = self._given(left + width / 2)
            return h * drift, h * gain, h * noise
        (f1, c1, q1), (f2, c2, q2) = (self._given(left + g * width) for g in _GAUSS)
        turn = math.sqrt(3) / 12 * h**2
        # the commutator of the generators [[F, Q], [0, -F^T]], and of [[F, C], [0, 0]] for the condition
        drift = h / 2 * (f1 + f2) + turn * (f2 @ f1 - f1 @ f2)
        gain = h / 2 * (c1 + c2) + turn * (f2 @ c1 - f1 @ c2)
        mixed = f2 @ q1 - f1 @ q2
        return drift, gain, h / 2 * (q1 + q2) + turn * (mixed + mixed.mT)


def _sliced(steps: Coefs, part: slice) -> Coefs:
    phi, gain, spread = steps
    return phi[part], gain[part], spread[part]


def _joined(first: Coefs, second: Coefs) -> Coefs:
    return torch.cat([first[0], second[0]]), torch.cat([first[1], second[1]]), torch.cat([first[2], second[2]])
