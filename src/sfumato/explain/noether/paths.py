r"""The most likely path of a noisy system between two known states, and what is conserved along it.

It makes the action `S = int L dt` (`sfumato.explain.noether.lagrangian`) stationary. Along it the momentum at the nodes is the discrete
`p_i = d(h L)_{i-1}/dx_i = -d(h L)_i/dx_i`, and a linear generator that leaves drift and diffusion alone has a charge `p_i . xi(x_i)`
that is constant to the solver's tolerance whatever the step (discrete Noether theorem); the energy is constant to second order in it.

Source: Vastola 2024 (arXiv 2504.09761), sections 2-4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError, ShapeError
from sfumato.explain.differentiate import check_differentiable
from sfumato.explain.explanation import Explanation
from sfumato.explain.noether.boundary import SOLVERS, Boundary, Method, Solution
from sfumato.explain.noether.dynamics import Dynamics, rising
from sfumato.explain.noether.generators import Generator
from sfumato.explain.noether.lagrangian import Action, check_action, energy

_SAME = 1e-4
"""Paths nearer to each other than this share of their extent are one."""


@dataclass(frozen=True)
class MostLikelyPath(Explanation):
    """A path between two ends along which the action is stationary.

    Arguments:
        lagrangian: which action.
        times, path, momenta: at the nodes.
        driftless: where the path would be without drift: the twin with the mechanism off.
        action: `S`, the smallest found.
        energy: at the midpoints of the steps.
        charges: of the generators asked for, at the nodes.
        minima: the actions of all different paths found, smallest first.
        others: those paths but the first.
        converged: whether the solver's criterion was met; if not, the path is the best found.
        residual: the largest component of the action's gradient (shooting: miss of the end; collocation: relative residual).
        iterations: steps of the solver.
    """

    lagrangian: Action
    times: Float[Tensor, "nodes"]
    path: Float[Tensor, "nodes dim"]
    momenta: Float[Tensor, "nodes dim"]
    driftless: Float[Tensor, "nodes dim"]
    action: float
    energy: Float[Tensor, "steps"]
    charges: dict[str, Float[Tensor, "nodes"]]
    minima: list[float]
    others: list[Float[Tensor, "nodes dim"]]
    converged: bool
    residual: float
    iterations: int

    @property
    def numbers(self) -> dict[str, float]:
        spreads = {f"spread of {name}": spread(charge) for name, charge in self.charges.items()}
        energies = {"energy": float(self.energy.mean()), "spread of energy": spread(self.energy)}
        return {"action": self.action, **energies, **spreads, "converged": float(self.converged), "minima": float(len(self.minima))}

    @property
    def meaning(self) -> str:
        time = float(self.times[-1] - self.times[0])
        text = f"In a time of {time:.3g} the most likely path costs an action of {self.action:.4g}"
        text += f" and has the energy {float(self.energy.mean()):.3g}."
        kept = [name for name, charge in self.charges.items() if spread(charge) < 1e-2]
        if kept:
            text += f" Conserved along it to 1 percent: {', '.join(kept)}."
        if len(self.minima) > 1:
            text += f" {len(self.minima)} different paths were found; the next one costs {self.minima[1]:.4g}."
        return (
            text if self.converged else f"{text} The solver did not converge (residual {self.residual:.2g}): this is the best path found."
        )

    def plot(self, ax: Any) -> None:
        flat = self.path.shape[1] > 1
        for i, (states, look) in enumerate(
            [(self.path, {"color": "C0"}), (self.driftless, {"color": "C1", "linestyle": "--"})]
            + [(other, {"color": "C0", "linestyle": ":"}) for other in self.others]
        ):
            label = ["most likely path", "without drift"][i] if i < 2 else "other local minima" if i == 2 else None
            curve = (states[:, 0], states[:, 1]) if flat else (self.times, states[:, 0])
            ax.plot(*(c.tolist() for c in curve), label=label, **look)
        ends = self.path[[0, -1]]
        ax.plot(*((ends[:, 0], ends[:, 1]) if flat else (self.times[[0, -1]], ends[:, 0])), "o", color="C2", label="ends")
        ax.set_xlabel("x1" if flat else "time")
        ax.set_ylabel("x2" if flat else "x")
        ax.legend()


def most_likely_path(
    dynamics: Dynamics,
    start: Float[Tensor, "dim"],
    end: Float[Tensor, "dim"],
    times: Float[Tensor, "nodes"],
    *,
    action: Action = "onsager-machlup",
    method: Method = "newton",
    through: Sequence[Tensor] = (),
    generators: Sequence[Generator] = (),
    tolerance: float = 1e-9,
) -> MostLikelyPath:
    """The most likely path from `start` at `times[0]` to `end` at `times[-1]`.

    Arguments:
        dynamics: in float64; `Dynamics.reverse(denoiser, event_shape)` for a denoiser.
        start, end: flat states.
        times: of the nodes, rising; need not be uniform (`reverse_times`).
        action: onsager-machlup is the mode of paths; freidlin-wentzell its limit of small noise.
        method: newton; the others are for comparison.
        through: further initial guesses beside the straight one, each through a state `(dim,)` or several `(points, dim)`.
        generators: whose charges are wanted.
        tolerance: largest component of the gradient of the action, relative to the largest momentum if that is above 1.

    Raises:
        ShapeError: ends or guesses of another dimension.
        ArgumentError: an unknown action or method, an action that these dynamics do not have, times that do not rise, a drift that autograd
            does not see through, drift or diffusion that are not finite, dynamics not in float64.
    """
    check_action(dynamics, action)
    if method not in get_args(Method):
        raise ArgumentError("method", repr(method), f"one of {', '.join(get_args(Method))}")
    if dynamics.dtype != torch.float64:
        raise ArgumentError("dynamics.dtype", dynamics.dtype, "torch.float64", "Second derivatives of an action need its digits.")
    for name, state in (("start", start), ("end", end)):
        if state.shape != (dynamics.dim,):
            raise ShapeError(name, tuple(state.shape), f"({dynamics.dim},)")
    problem = Boundary(dynamics, action, rising(times))
    a, b = start.to(torch.float64), end.to(torch.float64)
    guesses = [_through(problem, torch.stack([a, b]))]
    guesses += [_through(problem, torch.cat([a[None], point.to(a).reshape(-1, dynamics.dim), b[None]])) for point in through]
    middle = (guesses[0][1:] + guesses[0][:-1]) / 2
    check_differentiable(lambda y: dynamics.drift(y, problem.middles), middle)
    found = _different(problem, b, [SOLVERS[method](problem, guess, _scaled(problem, guess, tolerance)) for guess in guesses])
    return _result(problem, found, guesses[0], generators)


def spread(values: Tensor) -> float:
    """The range of values over their absolute mean."""
    return float((values.max() - values.min()) / values.mean().abs())


def _scaled(problem: Boundary, guess: Tensor, tolerance: float) -> float:
    first, _ = problem.slopes(guess)
    return tolerance * max(1.0, float(first.abs().max()))


def _clock(problem: Boundary) -> Tensor:
    """The share of the noise that has come by each node, `int D dt` from 0 to 1; of time where `D` depends on the state."""
    steps = problem.steps
    if problem.dynamics.additive:
        D = problem.dynamics.D(torch.zeros(len(steps), problem.dynamics.dim, dtype=torch.float64), problem.middles)
        steps = steps * (D if D.ndim == 1 else D.diagonal(dim1=1, dim2=2).mean(1))
    passed = torch.cat([steps.new_zeros(1), steps.cumsum(0)])
    return passed / passed[-1]


def _through(problem: Boundary, points: Tensor) -> Tensor:
    """Straight lines from point to point, at equal shares of the clock; without drift the path between two ends is one."""
    place = _clock(problem) * (len(points) - 1)
    index = place.floor().long().clamp(max=len(points) - 2)
    part = (place - index)[:, None]
    out = points[index] * (1 - part) + points[index + 1] * part
    out[-1] = points[-1]
    return out


def _different(problem: Boundary, end: Tensor, found: list[Solution]) -> list[tuple[float, Solution]]:
    """The solutions that are not the same, by their action; those that miss the end (shooting) last."""
    valued = [(problem.value(s.path), s) for s in found]
    ranked = sorted(valued, key=lambda pair: (float((pair[1].path[-1] - end).abs().max()) > _SAME, pair[0]))
    kept: list[tuple[float, Solution]] = []
    for value, solution in ranked:
        extent = 1 + float(solution.path.abs().max())
        if all(float((solution.path - other.path).abs().max()) > _SAME * extent for _, other in kept):
            kept.append((value, solution))
    return kept


def _result(problem: Boundary, found: list[tuple[float, Solution]], driftless: Tensor, generators: Sequence[Generator]) -> MostLikelyPath:
    value, best = found[0]
    first, second = problem.slopes(best.path)
    momenta = torch.cat([-first[:1], second])
    middle, velocity = (best.path[1:] + best.path[:-1]) / 2, best.path.diff(dim=0) / problem.steps[:, None]
    with torch.no_grad():
        along = energy(problem.dynamics, problem.action, middle, velocity, problem.middles)
        charges = {g.name: (momenta * g.field(best.path, problem.times)).sum(1) for g in generators}
    return MostLikelyPath(
        problem.action,
        problem.times,
        best.path,
        momenta,
        driftless,
        value,
        along,
        charges,
        [v for v, _ in found],
        [s.path for _, s in found[1:]],
        best.converged,
        best.residual,
        best.iterations,
    )
