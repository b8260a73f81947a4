r"""Which steps a solver survives: its region of stability on `dy/dk = lambda y`, the test equation of multistep methods.

A step of `z = lambda dk` multiplies what a solver has by a factor; the region is where no such factor exceeds 1. Strong guidance and thin
data make the flow contract fast (`Re z << 0`), and a solver outside its region there blows up locally, which shows as artifacts. The
factor is measured by running the solver's own table over equal steps in `k`, with the answers `D = (1 - k lambda) y` of `eps = lambda y`.

On the negative axis the factor reaches -1 first. There velocity and direction of a heavy ball are `beta/(2 - beta)` of the plain direction,
so the boundary `-z = 2 / sum |c_n|` of Adams' constants grows by `(2 - beta)/beta`; the others' forms are in `predicted_boundary`.
Source: Wizadwongsa et al. 2023 (arXiv 2307.11118), section 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from sfumato.explain.explanation import Explanation
from sfumato.noise import EDM
from sfumato.sample import Momentum, Program, Solver
from sfumato.sample.compilers.extrapolation import ADAMS
from sfumato.sample.compilers.momentum import ghvb_coefficients

_STEPS = 240
_WINDOW = 12
"""Over so many rows sizes are compared: longer than the period of any factor on the boundary that matters."""


def growth(solver: Solver, z: Complex[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The factor by which a step of `z = lambda dk` multiplies what a solver has, after many; infinite where it overflows."""
    return _growth(_table(solver), z)


def _table(solver: Solver) -> Program:
    # k from 2 n to n in steps of 1, so lambda = -z
    return solver.compile(EDM(2.0 * _STEPS), [1 - i / (2 * _STEPS) for i in range(_STEPS + 1)])


def _growth(program: Program, z: Tensor) -> Tensor:
    states = [torch.ones_like(z)]
    answers: dict[int, Tensor] = {}
    for row in program.rows[1:]:
        for j in row.data:
            if j not in answers:
                answers[j] = (1 + 2 * _STEPS * program.times[j] * z) * states[j]
        total = torch.zeros_like(z)
        for j, a in row.states.items():
            total = total + float(a) * states[j]
        for j, b in row.data.items():
            total = total + float(b) * answers[j]
        states.append(total)
    sizes = torch.stack(states).abs()
    rows = len(sizes) // 2
    late, early = (part.max(0).values for part in (sizes[-_WINDOW:], sizes[rows - _WINDOW : rows]))
    steps = _STEPS * (len(sizes) - rows) / (len(sizes) - 1)
    return torch.nan_to_num((late / early) ** (1 / steps), nan=math.inf)


def real_boundary(solver: Solver, furthest: int | float = 40.0) -> float:
    """How far the region reaches on the negative axis, `-z`, to a part in 1e3; `furthest` if it reaches beyond."""
    program, low, high = _table(solver), 0.0, float(furthest)
    for _ in range(3):
        places = torch.linspace(low, high, 122, dtype=torch.float64)[1:]
        # rounding alone may keep a factor of 1 from being exactly 1
        bad = _growth(program, -places.to(torch.complex128)) > 1 + 1e-9
        if not bool(bad.any()):
            return high
        first = int(torch.nonzero(bad)[0])
        low, high = float(places[first - 1]) if first else low, float(places[first])
    return (low + high) / 2


def predicted_boundary(solver: Solver) -> float | None:
    """The closed form where there is one: `2 (2 - beta)/beta / sum |c|` (heavy-ball), that over `3 - 2 beta` (nesterov), and
    `2 (2 - beta) / sum |c(beta)|` (ghvb; `2 - beta` with two velocities), of solvers that average the noise.
    """
    if not isinstance(solver, Momentum) or solver.prediction != "noise":
        return None
    widened = 2 * (2 - solver.beta)
    if solver.kind == "ghvb":
        return widened / sum(abs(c) for c in ghvb_coefficients(solver.steps, solver.beta))
    widened /= solver.beta * (1 if solver.kind == "heavy-ball" else 3 - 2 * solver.beta)
    return widened / sum(abs(c) for c in ADAMS[solver.steps])


@dataclass(frozen=True)
class Stability(Explanation):
    """A solver's region of stability.

    Arguments:
        solver: its name.
        boundary: how far it reaches on the negative axis.
        predicted: the closed form of that, where there is one.
        plain: the boundary of the same solver without momentum, where it has any.
        real, imaginary: the axes of the map.
        factor: the growth factors over them, `(imaginary, real)`.
        plain_factor: those of the solver without momentum.
    """

    solver: str
    boundary: float
    predicted: float | None
    plain: float | None
    real: list[float]
    imaginary: list[float]
    factor: list[list[float]]
    plain_factor: list[list[float]] | None

    @property
    def numbers(self) -> dict[str, float]:
        """The boundary beside its closed form and the one without momentum."""
        beside = {"predicted": self.predicted, "without_momentum": self.plain}
        return {"boundary": self.boundary, **{k: v for k, v in beside.items() if v is not None}}

    @property
    def meaning(self) -> str:
        text = f"{self.solver} stays bounded while a step contracts the flow by less than {self.boundary:.3g}"
        if self.plain is not None:
            text += f", {self.boundary / self.plain:.2g} times as far as without momentum"
        return text + "."

    def plot(self, ax: Any) -> None:
        """The region, the closed form's boundary, and the region without momentum."""
        ax.contour(self.real, self.imaginary, self.factor, levels=[1.0], colors="C0")
        ax.plot([], [], color="C0", label=self.solver)
        if self.plain_factor is not None:
            ax.contour(self.real, self.imaginary, self.plain_factor, levels=[1.0], colors="C2")
            ax.plot([], [], color="C2", label="without momentum")
        if self.predicted is not None:
            ax.axvline(-self.predicted, color="C1", linestyle=":", label="closed form on the axis")
        ax.set_xlabel("Re z")
        ax.set_ylabel("Im z")
        ax.legend()


def stability(solver: Solver, points: int = 61) -> Stability:
    """Measure a solver's region of stability by its table.

    Arguments:
        solver: a deterministic one.
        points: of the map, along either axis.
    """
    plain = replace(solver, beta=1.0) if isinstance(solver, Momentum) and solver.beta < 1 else None
    boundary = real_boundary(solver)
    real = torch.linspace(-1.4 * boundary, 0.2 * boundary, points, dtype=torch.float64)
    imaginary = torch.linspace(-boundary, boundary, points, dtype=torch.float64)
    z = torch.complex(*torch.meshgrid(real, imaginary, indexing="xy"))

    def factors(one: Solver) -> list[list[float]]:
        # what overflows is as unstable as anything beyond 10
        found: list[list[float]] = growth(one, z.flatten()).clamp(max=10).reshape(z.shape).tolist()
        return found

    return Stability(
        solver.name,
        boundary,
        predicted_boundary(solver),
        None if plain is None else real_boundary(plain),
        real.tolist(),
        imaginary.tolist(),
        factors(solver),
        None if plain is None else factors(plain),
    )
