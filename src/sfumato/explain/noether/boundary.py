r"""The boundary value problem of a most likely path: `x(0)` and `x(T)` given, action stationary.

The action is discretised at the midpoint of each step, `S = sum_i h_i L((x_i + x_{i+1})/2, (x_{i+1} - x_i)/h_i, t_mid)`. Newton and
gradient descent find a minimum of that sum; shooting and collocation solve Hamilton's equations of the continuous path.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.explain.differentiate import gradient, jacobian
from sfumato.explain.noether.dynamics import Dynamics
from sfumato.explain.noether.lagrangian import Action, hamilton_field, lagrangian, momentum

Method = Literal["newton", "shooting", "collocation", "descent"]
_TIE = 1e-13
"""Relative difference of two actions that rounding can make."""
_RUNAWAY = 100.0
"""How many times the extent of the guess a shot may go."""
_LEAST_SHIFT, _MOST_SHIFT = 1e-12, 1e12
"""Levenberg shifts, as shares of the Hessian's mean diagonal; long paths are flat to 1e-10 of it."""


@dataclass(frozen=True)
class Solution:
    """A path, whether the solver's own criterion was met, what is left of it, and the steps made."""

    path: Float[Tensor, "nodes dim"]
    converged: bool
    residual: float
    iterations: int


@dataclass(frozen=True)
class Boundary:
    """The action of paths between two ends, as a function of their nodes.

    Arguments:
        dynamics, action: see `lagrangian`.
        times: rising, float64.
    """

    dynamics: Dynamics
    action: Action
    times: Float[Tensor, "nodes"]

    @property
    def steps(self) -> Tensor:
        """The lengths of the steps in time."""
        return self.times.diff()

    @property
    def middles(self) -> Tensor:
        """The times of the midpoints."""
        return (self.times[1:] + self.times[:-1]) / 2

    def segments(self, ends: Float[Tensor, "steps two_dim"]) -> Float[Tensor, "steps"]:
        """`h_i L_i` of each step, of its two ends side by side."""
        here, there = ends.chunk(2, dim=1)
        h = self.steps.to(ends)
        return h * lagrangian(self.dynamics, self.action, (here + there) / 2, (there - here) / h[:, None], self.middles)

    def value(self, path: Float[Tensor, "nodes dim"]) -> float:
        """The action."""
        with torch.no_grad():
            return float(self.segments(pairs(path)).sum())

    def slopes(self, path: Float[Tensor, "nodes dim"]) -> tuple[Float[Tensor, "steps dim"], Float[Tensor, "steps dim"]]:
        """The derivatives of each `h_i L_i` by its first and by its second end."""
        with torch.enable_grad():
            ends = pairs(path).detach().requires_grad_()
            first, second = gradient(self.segments(ends), ends).chunk(2, dim=1)
        return first, second

    def gradient(self, path: Float[Tensor, "nodes dim"]) -> Float[Tensor, "inner dim"]:
        """The gradient of the action by the inner nodes."""
        first, second = self.slopes(path)
        return second[:-1] + first[1:]

    def curvature(self, path: Float[Tensor, "nodes dim"]) -> tuple[Float[Tensor, "inner dim"], Float[Tensor, "steps two_dim two_dim"]]:
        """The gradient by the inner nodes, and the Hessian of each `h_i L_i` by its ends."""
        with torch.enable_grad():
            ends = pairs(path).detach().requires_grad_()
            slopes = gradient(self.segments(ends), ends, keep=True)
            hessians = jacobian(slopes, ends)
        first, second = slopes.detach().chunk(2, dim=1)
        return second[:-1] + first[1:], hessians.detach()


def pairs(path: Float[Tensor, "nodes dim"]) -> Float[Tensor, "steps two_dim"]:
    """The two ends of each step side by side."""
    return torch.cat([path[:-1], path[1:]], dim=1)


def newton(problem: Boundary, guess: Tensor, tolerance: float, iterations: int = 1000) -> Solution:
    """Damped Newton: the block-tridiagonal Hessian, shifted (Levenberg) until it is positive definite and the action falls."""
    path, value, shift = guess.clone(), problem.value(guess), 0.0
    for made in range(iterations + 1):
        slope, hessians = problem.curvature(path)
        residual = _size(slope)
        if residual <= tolerance or made == iterations:
            break
        banded = _banded(hessians, path.shape[1])
        scale = float(np.abs(banded[0]).mean())
        while True:
            new = path.clone()
            step = _solve(banded, shift, slope)
            if step is not None:
                new[1:-1] -= step
                fallen = problem.value(new)
                # at the bottom the action no longer resolves what its gradient does
                tie = abs(fallen - value) <= _TIE * max(1.0, abs(value))
                if (fallen < value and not tie) or (tie and _size(problem.gradient(new)) < residual):
                    break
            shift = max(10 * shift, _LEAST_SHIFT * scale)
            if shift > _MOST_SHIFT * scale:
                return Solution(path, False, residual, made)
        path, value = new, fallen
        shift = shift / 10 if shift > _LEAST_SHIFT * scale else 0.0
    return Solution(path, residual <= tolerance, residual, made)


def descent(problem: Boundary, guess: Tensor, tolerance: float, iterations: int = 20_000) -> Solution:
    """Plain gradient descent on the nodes; the rate is halved where the action would rise, and grows otherwise."""
    path, value = guess.clone(), problem.value(guess)
    slope = problem.gradient(path)
    rate = float(problem.steps.min())
    for made in range(iterations + 1):
        residual = _size(slope)
        if residual <= tolerance or made == iterations or rate < 1e-300:
            break
        new = path.clone()
        new[1:-1] -= rate * slope
        fallen = problem.value(new)
        if not fallen < value:
            rate /= 2
            continue
        path, value, slope, rate = new, fallen, problem.gradient(new), 1.1 * rate
    return Solution(path, residual <= tolerance, residual, made)


def shooting(problem: Boundary, guess: Tensor, tolerance: float, iterations: int = 100) -> Solution:
    """The initial momentum for which Hamilton's equations hit the end (DOP853 inside Powell's hybrid root finder)."""
    from scipy.integrate import solve_ivp
    from scipy.optimize import root

    d, times, field = guess.shape[1], problem.times.numpy(), _hamilton(problem)
    start, end = guess[0].numpy(), guess[-1].numpy()

    far = _RUNAWAY * (1 + float(guess.abs().max()))

    def runs_away(t: float, y: np.ndarray) -> float:
        return far - float(np.abs(y[:d]).max())

    runs_away.terminal = True  # type: ignore[attr-defined]

    def rates(t: float, y: np.ndarray) -> np.ndarray:
        return field(np.array([t]), y[:, None])[:, 0]

    def shoot(p: np.ndarray) -> np.ndarray:
        y = np.concatenate([start, p])
        run = solve_ivp(rates, (times[0], times[-1]), y, "DOP853", times, events=runs_away, rtol=1e-9, atol=1e-10)
        # a trajectory that runs away never comes to the end: it stays where it was stopped
        missing = len(times) - run.y.shape[1]
        return np.pad(run.y[:d], ((0, 0), (0, missing)), "edge")

    h = problem.steps[:1]
    first = momentum(problem.dynamics, problem.action, guess[:1], (guess[1:2] - guess[:1]) / h, problem.times[:1])
    found = root(lambda p: shoot(p)[:, -1] - end, first.detach()[0].numpy(), method="hybr", options={"maxfev": iterations})
    path = torch.from_numpy(shoot(found.x).T.copy())
    residual = float(np.abs(path[-1].numpy() - end).max())
    return Solution(path, residual <= max(tolerance, 1e-8), residual, int(found.nfev))


def collocation(problem: Boundary, guess: Tensor, tolerance: float, iterations: int = 20_000) -> Solution:
    """scipy's `solve_bvp` on `(x, p)`; `iterations` bounds the nodes of its own mesh."""
    from scipy.integrate import solve_bvp

    d, times, field = guess.shape[1], problem.times.numpy(), _hamilton(problem)
    start, end = guess[0].numpy(), guess[-1].numpy()
    velocity = torch.cat([guess.diff(dim=0) / problem.steps[:, None], (guess[-1:] - guess[-2:-1]) / problem.steps[-1]])
    p = momentum(problem.dynamics, problem.action, guess, velocity, problem.times).detach()
    solved = solve_bvp(
        field,
        lambda a, b: np.concatenate([a[:d] - start, b[:d] - end]),
        times,
        torch.cat([guess, p], dim=1).T.numpy(),
        tol=max(tolerance, 1e-8),
        max_nodes=iterations,
    )
    return Solution(
        torch.from_numpy(solved.sol(times)[:d].T.copy()), bool(solved.success), float(solved.rms_residuals.max()), int(solved.niter)
    )


SOLVERS: dict[str, Callable[[Boundary, Tensor, float], Solution]] = {
    "newton": newton,
    "shooting": shooting,
    "collocation": collocation,
    "descent": descent,
}
"""The solvers by the name of their method."""


def _size(slope: Tensor) -> float:
    return float(slope.abs().max()) if slope.numel() else 0.0


def _banded(hessians: Tensor, d: int) -> np.ndarray:
    """The Hessian by the inner nodes in SciPy's lower banded form, `(2 d, inner d)`."""
    inner = len(hessians) - 1
    diagonal = (hessians[:-1, d:, d:] + hessians[1:, :d, :d]).numpy()
    below = hessians[1:-1, d:, :d].numpy()
    out = np.zeros((2 * d, inner * d))
    columns = np.arange(inner) * d
    for i in range(d):
        for j in range(d):
            if i >= j:
                out[i - j, columns + j] = diagonal[:, i, j]
            out[d + i - j, columns[:-1] + j] = below[:, i, j]
    return out


def _solve(banded: np.ndarray, shift: float, slope: Tensor) -> Tensor | None:
    """The Newton step, or None where the shifted Hessian is not positive definite."""
    from scipy.linalg import LinAlgError, solveh_banded

    shifted = banded.copy()
    shifted[0] += shift
    try:
        step = solveh_banded(shifted, slope.reshape(-1).numpy(), lower=True)
    except LinAlgError:
        return None
    return torch.from_numpy(step).reshape(slope.shape)


def _hamilton(problem: Boundary) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """`(t (m,), y (2 d, m)) -> y'`."""

    def field(t: np.ndarray, y: np.ndarray) -> np.ndarray:
        x, p = torch.from_numpy(y.T.copy()).chunk(2, dim=1)
        rates = hamilton_field(problem.dynamics, problem.action, x, p, torch.from_numpy(np.asarray(t, dtype=np.float64)))
        return torch.cat(rates, dim=1).T.numpy()

    return field
