r"""The Fokker-Planck equation on the line, in finite volumes: how the density of `dx = f(x, t) dt + sqrt(2 q(x, t)) dW` (Ito) moves.

    dp/dt = -dJ/dx,        J = f p - d(q p)/dx,        J = 0 at both ends.

One step is implicit (backward Euler) with upwind advection: with cells of width `w` and `f` on the faces between them

    J = max(f, 0) p_left + min(f, 0) p_right - (q_right p_right - q_left p_left) / w.

The matrix of a step is an M-matrix whose columns sum to 1, so the density stays positive and its mass stays 1 at any step, also where
`q = 0`; the error is of first order in the step and in `w` (upwinding adds the diffusion `|f| w / 2`).
Source: LeVeque 2002, Finite Volume Methods for Hyperbolic Problems, section 4; Chang & Cooper 1970 (doi 10.1016/0021-9991(70)90001-X).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError, ShapeError

Coefficient = Callable[[Float[Tensor, " n"], float], Float[Tensor, " n"]]
"""Places `(n,)`, float64, and a time to values `(n,)`."""


@dataclass(frozen=True)
class Line:
    """Equal cells of an interval.

    Raises:
        ArgumentError: an empty interval, or fewer than 2 cells.
    """

    low: float
    high: float
    cells: int

    def __post_init__(self) -> None:
        if not self.low < self.high or self.cells < 2:
            raise ArgumentError("low, high, cells", (self.low, self.high, self.cells), "low < high and at least 2 cells")

    @property
    def width(self) -> float:
        """The width of a cell."""
        return (self.high - self.low) / self.cells

    @property
    def faces(self) -> Float[Tensor, " cells_and_one"]:
        """Where cells begin and end, both ends of the interval included; float64."""
        return torch.linspace(self.low, self.high, self.cells + 1, dtype=torch.float64)

    @property
    def centres(self) -> Float[Tensor, " cells"]:
        """The middles of the cells, float64."""
        return (self.faces[1:] + self.faces[:-1]) / 2


@dataclass(frozen=True, eq=False)
class LineDensity:
    """A density that is constant in every cell; it is scaled to have mass 1.

    Arguments:
        line: the cells.
        values: the density in them, `(cells,)`, float64.

    Raises:
        ShapeError: not one value a cell.
        ArgumentError: values that are negative or not finite, or all 0.
    """

    line: Line
    values: Float[Tensor, " cells"]

    def __post_init__(self) -> None:
        if self.values.shape != (self.line.cells,):
            raise ShapeError("values", tuple(self.values.shape), f"one value per cell, ({self.line.cells},)")
        total = float(self.values.sum()) * self.line.width
        if not bool((self.values >= 0).all()) or not 0 < total < float("inf"):
            raise ArgumentError("values", f"a least value of {float(self.values.min()):.3g} and a mass of {total:.3g}", "a density")
        object.__setattr__(self, "values", self.values.to(torch.float64) / total)

    @property
    def mean(self) -> float:
        """The mean of the cells' middles."""
        return float(self.values @ self.line.centres) * self.line.width

    @property
    def std(self) -> float:
        """The standard deviation of the cells' middles."""
        return float(self.values @ (self.line.centres - self.mean) ** 2 * self.line.width) ** 0.5

    @property
    def cdf(self) -> Float[Tensor, " cells_and_one"]:
        """The mass below every face."""
        return torch.cat([self.values.new_zeros(1), self.values.cumsum(0) * self.line.width])

    def mass(self, low: float, high: float) -> float:
        """The probability of an interval; cells that it cuts count in part."""
        faces = self.line.faces
        inside = (faces[1:].clamp(max=high) - faces[:-1].clamp(min=low)).clamp(min=0)
        return float(self.values @ inside)

    def quantile(self, level: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Where the distribution function reaches the levels in [0, 1], linear within cells; `quantile(uniform)` is a sample."""
        edges, faces = self.cdf, self.line.faces
        right = torch.searchsorted(edges, level.to(torch.float64)).clamp(1, self.line.cells)
        # an empty cell is passed through at its right end
        share = ((level - edges[right - 1]) / (edges[right] - edges[right - 1])).nan_to_num(1.0, 1.0, 1.0).clamp(0, 1)
        return faces[right - 1] + share * self.line.width


def fokker_planck(start: LineDensity, times: Sequence[float], drift: Coefficient, noise: Coefficient) -> LineDensity:
    """The density at the last of `times`.

    Arguments:
        start: the density at `times[0]`.
        times: strictly rising, or strictly falling for a process that is told in falling times; either way `drift` and `noise` are rates
            per unit of time gone by.
        drift: `f`, asked on the faces inside the interval.
        noise: `q >= 0` (half the squared diffusion coefficient), asked in the middles of the cells.

    Raises:
        ArgumentError: fewer than 2 times or times that turn; coefficients that are not finite; a negative `q`.
    """
    from scipy.linalg import solve_banded

    gaps = [b - a for a, b in pairwise(times)]
    if not gaps or not (all(g > 0 for g in gaps) or all(g < 0 for g in gaps)):
        raise ArgumentError("times", f"{len(times)} times", "at least 2 times, strictly rising or strictly falling")
    density = start.values.numpy()
    for gap, time in zip(gaps, times[1:], strict=True):
        density = solve_banded((1, 1), _step(start.line, abs(gap), time, drift, noise).numpy(), density)
    return LineDensity(start.line, torch.from_numpy(density).clamp(min=0))


def _step(line: Line, gap: float, time: float, drift: Coefficient, noise: Coefficient) -> Float[Tensor, "3 cells"]:
    """The matrix `I - gap A` of one step, as three bands: above, on and below the diagonal."""
    f, q = drift(line.faces[1:-1], time), noise(line.centres, time)
    if not bool(torch.isfinite(f).all()) or not bool((torch.isfinite(q) & (q >= 0)).all()):
        raise ArgumentError("drift, noise", f"values that are not finite, or a negative q, at time {time:.6g}", "finite drift, q >= 0")
    rate = gap / line.width
    # what leaves the left cell of a face to the right, and the right cell to the left
    rightward, leftward = rate * (f.clamp(min=0) + q[:-1] / line.width), rate * (-f.clamp(max=0) + q[1:] / line.width)
    bands = q.new_zeros(3, line.cells)
    bands[0, 1:], bands[2, :-1] = -leftward, -rightward
    bands[1] = 1
    bands[1, :-1] += rightward
    bands[1, 1:] += leftward
    return bands
