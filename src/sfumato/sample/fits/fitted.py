r"""Fitted tables: at every step the coefficients that come closest to the flow, by least squares.

Given the nodes, a row is linear in its coefficients, so the best ones for a denoiser need no search. Walking down with the program's own
states, step `i` solves, in each mode of a Gaussian law on its own,

    min E | x*_i - (base_i + a c X~_b + sum_n b_n R_n) |^2 + ridge (...),         R_n = D~_n - gamma_n X~_n,

over `a` and the `b_n` of all past nodes, where `x*_i` is the flow's state from the same start, `c` the closed form's factor and `base_i`
the second-order Gaussian exponential step. The ridge, relative to each feature's own size, shrinks towards that step. Directions that
are no eigenvector share one fit. Whoever fits must judge on other noise than was fitted to.

Related: improved integration approximation (`improved_integration.py`) and D-ODE (`distilled.py`) fit a few scalars a step; here every
mode has its own row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.exact.laws.gaussian import Gaussian
from sfumato.sample.compilers.linearisation import Linearisation
from sfumato.sample.fits.least_squares import ridge_solve
from sfumato.sample.fits.reference import Trajectory
from sfumato.sample.program import Program, Row
from sfumato.sample.run import Denoise


def fit_program(
    denoise: Denoise,
    trajectory: Trajectory,
    nodes: Sequence[int],
    law: Gaussian,
    *,
    power: float = 0.5,
    history: int | None = None,
    ridge: float = 1e-6,
    name: str = "fitted",
) -> Program:
    """Fit a program that evaluates at the given places of a reference trajectory.

    Arguments:
        denoise: the denoiser; asked once a node, on the trajectory's batch.
        trajectory: the flow's states to fit to, e.g. of `reference`.
        nodes: rising indices into `trajectory.times` at which to evaluate; the last state is always the end. If the first is not 0, the
            closed form carries the start there (a teleport).
        law: the Gaussian whose modes are fitted.
        power: scales the residuals of the base step, see `Linearisation`.
        history: how many past answers a row may use; None for all.
        ridge: strength of the pull towards the base step.
        name: the program's name.

    Raises:
        ArgumentError: nodes that do not rise inside the trajectory, a ridge below 0, or a denoiser whose answers are not finite.
    """
    last = len(trajectory.times) - 1
    places = list(nodes)
    if not places or any(a >= b for a, b in pairwise(places)) or places[0] < 0 or places[-1] >= last:
        raise ArgumentError("nodes", places, f"rising indices from 0 to {last - 1}")
    if history is not None and history < 1:
        raise ArgumentError("history", history, "at least 1 past answer, or None for all")
    if not ridge >= 0:
        raise ArgumentError("ridge", ridge, "a strength of at least 0")
    with torch.no_grad():
        return _Fit(denoise, trajectory, law, power, history, ridge).program(places, name)


@dataclass
class _Vector:
    """A centred batch `(n, dim)` beside its modes `(n, rank)`; without a complement the modes say it all."""

    flat: Tensor | None
    modes: Tensor


class _Fit:
    def __init__(self, denoise: Denoise, trajectory: Trajectory, law: Gaussian, power: float, history: int | None, ridge: float) -> None:
        x = trajectory.states[0]
        self.denoise, self.trajectory, self.law = denoise, trajectory, law
        self.history, self.ridge = history, ridge
        self.split = Linearisation.gaussian(law, power)
        self.here = law.to(x.dtype, x.device)
        self.rank, self.codim = law.covariance.rank, law.dim - law.covariance.rank
        t = torch.tensor(trajectory.times, dtype=torch.float64)
        process = trajectory.process
        self.alpha, self.sigma = process.alpha(t).tolist(), process.sigma(t).tolist()
        self.lam = process.half_log_snr(t).tolist()

    def program(self, places: list[int], name: str) -> Program:
        shape = self.trajectory.states[0].shape
        state = self._read(self.trajectory.states[0], self.alpha[0])
        kept, rows = [0], [Row()]
        if places[0] != 0:
            factor = self._carry(0, places[0])
            state = self._combine([(factor, state)])
            kept, rows = [0, places[0]], [Row(), Row({0: factor})]
        residuals: list[tuple[int, int, _Vector]] = []  # (row, place, residual)
        for place, target in zip(places, [*places[1:], len(self.lam) - 1], strict=True):
            row = len(rows) - 1
            answer = self.denoise(self._write(state, self.alpha[place]).reshape(shape), self.trajectory.times[place])
            if not bool(torch.isfinite(answer).all()):
                raise ArgumentError("denoise", f"NaN or infinities at t = {self.trajectory.times[place]:.4g}", "finite answers")
            gain = self.split.gain(self.alpha[place], self.sigma[place])
            residual = self._combine([(torch.ones_like(gain), self._read(answer, 1.0)), (-gain, state)])
            residuals = [*residuals, (row, place, residual)][-(self.history or len(rows)) :]
            factor, weights = self._solve(state, place, target, residuals)
            rows.append(self._row(row, factor, weights, residuals))
            kept.append(target)
            state = self._combine([(factor, state), *((w, r) for w, (_, _, r) in zip(weights, residuals, strict=True))])
        return Program(name, self.trajectory.process, tuple(self.trajectory.times[i] for i in kept), tuple(rows), self.law)

    def _row(self, base: int, factor: Tensor, weights: list[Tensor], residuals: list[tuple[int, int, _Vector]]) -> Row:
        states, data = {base: factor}, {}
        for w, (node, place, _) in zip(weights, residuals, strict=True):
            data[node] = w
            gain = self.split.gain(self.alpha[place], self.sigma[place])
            states[node] = states.get(node, torch.zeros_like(w)) - w * gain
        return Row(states, data)

    def _carry(self, a: int, b: int) -> Tensor:
        return self.split.scale(self.alpha[b], self.sigma[b]) / self.split.scale(self.alpha[a], self.sigma[a])

    def _solve(self, state: _Vector, place: int, target: int, residuals: list[tuple[int, int, _Vector]]) -> tuple[Tensor, list[Tensor]]:
        """The row's factor on the state and its weights on the residuals, `(modes,)` each."""
        factor = self._carry(place, target)
        finite = [r for r in residuals[-2:] if abs(self.lam[r[1]]) < float("inf")]
        used = finite if finite and self.sigma[target] > 0 else residuals[-1:]
        level = (self.alpha[target], self.sigma[target])
        base = self.split.weights(self.lam[place], self.lam[target], [self.lam[p] for _, p, _ in used], level)
        weights = [torch.zeros_like(factor) for _ in residuals]
        weights[-len(used) :] = list(base)
        features = [self._combine([(factor, state)]), *(r for _, _, r in residuals)]
        guess = [(factor, state), *((w, r) for w, (_, _, r) in zip(weights, residuals, strict=True))]
        goal = self._read(self.trajectory.states[target], self.alpha[target])
        missing = self._combine([*((-c, v) for c, v in guess), (torch.ones_like(factor), goal)])
        change = self._regress(features, missing)
        return factor * (1 + change[:, 0]), [w + change[:, 1 + n] for n, w in enumerate(weights)]

    def _regress(self, features: list[_Vector], goal: _Vector) -> Tensor:
        """Ridge regression in each mode, and pooled over the rest of the space: `(modes, features)`."""
        f = torch.stack([v.modes for v in features], -1).to(torch.float64)
        gram, moment = torch.einsum("nmf,nmg->mfg", f, f), torch.einsum("nmf,nm->mf", f, goal.modes.to(torch.float64))
        if self.codim and goal.flat is not None:
            # inner products outside the basis are the whole ones less those inside
            flat = torch.stack([v.flat.reshape(-1) for v in features if v.flat is not None]).to(torch.float64)
            gram = torch.cat([gram, (flat @ flat.T - gram.sum(0))[None]])
            moment = torch.cat([moment, (flat @ goal.flat.reshape(-1).to(torch.float64) - moment.sum(0))[None]])
        return ridge_solve(gram, moment, self.ridge).cpu()

    def _read(self, x: Tensor, alpha: float) -> _Vector:
        flat = x.reshape(x.shape[0], -1) - alpha * self.here.mean.reshape(1, -1)
        return _Vector(flat if self.codim else None, self.here.covariance.project(flat))

    def _write(self, value: _Vector, alpha: float) -> Tensor:
        flat = self.here.covariance.lift(value.modes) if value.flat is None else value.flat
        return flat + alpha * self.here.mean.reshape(1, -1)

    def _combine(self, terms: list[tuple[Tensor, _Vector]]) -> _Vector:
        """`sum c v` for coefficients over the modes."""
        like = terms[0][1].modes
        cast = [(c.to(like), v) for c, v in terms]
        modes = torch.stack([c[: self.rank] * v.modes for c, v in cast]).sum(0)
        if not self.codim:
            return _Vector(None, modes)
        flat = torch.stack([c[-1] * v.flat for c, v in cast if v.flat is not None]).sum(0)
        correction = torch.stack([(c[: self.rank] - c[-1]) * v.modes for c, v in cast]).sum(0)
        return _Vector(flat + self.here.covariance.lift(correction), modes)
