r"""DPM-Solver-v3: the exponential integrator of a denoiser's measured statistics.

With `l, s, b` of `statistics.py`, `L = int l`, `S = int s`, `B = int exp(-S) b` and `C = int exp(L + S) B` over half log-SNR, the flow is

    d (exp(L) x / alpha) / dlambda = -exp(L + S) (G + B),        G = exp(-S) f - B,        f = ((1 - l) x) / alpha - D

and `G`, whose drift has no affine part left, is interpolated. This is a `Linearisation` like any other: scale `alpha exp(-L)`, gain
`(1 - l) / alpha`, kernel `exp(L + S)`. What `b` adds is a known vector at every level, and is moved into the coordinates,

    x' = x + alpha c,   c = exp(-L) C,        D' = D + (1 - l) c + exp(S) B

so that the program stays a table: `run_shifted` goes in and out of them. `l = 1, s = b = 0` is data prediction, `l = 0, s = -1, b = 0`
noise prediction. The curves are cubic splines through the measured nodes.

Source: Zheng et al. 2023 (arXiv 2310.13268), eqs. 8 to 15; the corrector reuses the residual of the predicted point, as theirs does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.sample.compilers.exponential import Exponential, Final
from sfumato.sample.compilers.linearisation import Linearisation
from sfumato.sample.fits.statistics import Statistics
from sfumato.sample.program import Program
from sfumato.sample.run import Denoise, run

Pseudo = Literal["none", "predictor", "corrector", "both"]
"""Where divided differences stand for derivatives: of order 2 at most, and steadier at few steps."""


@dataclass(frozen=True)
class Measured(Linearisation):
    """The split of measured statistics, see the module; make it with `measured`.

    Arguments:
        curves: splines of `l, L, S, B, C`.
        reach: the first and last half log-SNR that were measured.
        pseudo: see `Pseudo`.
        correct_from: half log-SNR from which the corrector acts; before it, a corrected point is the predicted one.
    """

    curves: tuple[Any, ...] = field(default=(), compare=False, repr=False)
    reach: tuple[float, float] = (-math.inf, math.inf)
    pseudo: Pseudo = "none"
    correct_from: float = -math.inf

    def order(self, nodes: int) -> int:
        return nodes if self.pseudo in ("none", "corrector") else min(nodes, 2)

    def scale(self, alpha: float, sigma: float) -> Tensor:
        return alpha * torch.exp(-self._at(1, _half_log_snr(alpha, sigma)))

    def gain(self, alpha: float, sigma: float) -> Tensor:
        return (1 - self._at(0, _half_log_snr(alpha, sigma))) / alpha

    def weights(self, base: float, end: float, nodes: Sequence[float], level: tuple[float, float]) -> Tensor:
        corrects = end in nodes
        if corrects and end < self.correct_from:
            before = [n for n in nodes if n != end]
            kept = self.weights(base, end, before, level)
            return torch.stack([kept[before.index(n)] if n != end else torch.zeros_like(kept[0]) for n in nodes])
        lam, step = self._quadrature(base, end)
        kernel = step[:, None] * torch.exp(self._at(1, lam) + self._at(2, lam) - self._at(1, end))
        pseudo = self.pseudo in ("both", "corrector" if corrects else "predictor")
        basis = _divided(lam, base, nodes) if pseudo else self.polynomials(lam, nodes)
        own = torch.exp(-self._at(2, torch.tensor(nodes, dtype=torch.float64)))
        return level[0] * own * torch.stack([(kernel * b[:, None]).sum(0) for b in basis])

    def shift(self, lam: float) -> tuple[Tensor, Tensor]:
        """`c` and `D' - D` at a level, `(modes,)` each."""
        drift, path = self._at(3, lam), self._at(4, lam)
        c = torch.exp(-self._at(1, lam)) * path
        return c, (1 - self._at(0, lam)) * c + torch.exp(self._at(2, lam)) * drift

    def _at(self, curve: int, lam: float | Tensor) -> Tensor:
        points = torch.as_tensor(lam, dtype=torch.float64)
        low, high = float(points.min()), float(points.max())
        # a level that has been to a time and back is off by rounding
        if not self.reach[0] - 1e-6 <= low <= high <= self.reach[1] + 1e-6:
            raise ArgumentError("times", f"half log-SNR {low:.4g} to {high:.4g}", f"levels that were measured, {self.reach}")
        return torch.from_numpy(np.asarray(self.curves[curve](points.numpy())))


_LARGEST = 700.0  # exp of more is infinite


def measured(statistics: Statistics, pseudo: Pseudo = "none", correct_from: float = -math.inf) -> Measured:
    """The split of measured statistics.

    Raises:
        ArgumentError: an unknown word for `pseudo`, or slopes whose integral leaves the range of floating point.
    """
    from scipy.interpolate import CubicSpline

    if pseudo not in get_args(Pseudo):
        raise ArgumentError("pseudo", repr(pseudo), f"one of {', '.join(get_args(Pseudo))}")
    lam = statistics.half_log_snr.numpy()
    jacobian, slope = (CubicSpline(lam, v.numpy()) for v in (statistics.jacobian, statistics.slope))
    carried, grown = jacobian.antiderivative(), slope.antiderivative()
    if not max(np.abs(grown(lam)).max(), np.abs(carried(lam) + grown(lam)).max()) < _LARGEST:
        hint = "Directions without variance have such slopes: measure over one mode, or with more data."
        raise ArgumentError(
            "statistics", f"slopes whose integral reaches {np.abs(grown(lam)).max():.4g}", f"integrals below {_LARGEST:g}", hint
        )
    drift = CubicSpline(lam, np.exp(-grown(lam)) * statistics.drift.numpy()).antiderivative()
    path = CubicSpline(lam, np.exp(carried(lam) + grown(lam)) * drift(lam)).antiderivative()
    still = torch.zeros(statistics.jacobian.shape[1], dtype=torch.float64)
    reach = (float(lam[0]), float(lam[-1]))
    return Measured(still, 0.5, statistics.space, (jacobian, carried, grown, drift, path), reach, pseudo, correct_from)


def dpm_solver_v3(
    statistics: Statistics,
    order: int = 2,
    *,
    corrector: bool = True,
    pseudo: Pseudo = "none",
    correct_from: float = -math.inf,
    final: Final = "full",
) -> Exponential:
    """DPM-Solver-v3 of order 1 to 3, multistep; its programs are walked by `run_shifted`.

    Arguments:
        statistics: of the denoiser that will be sampled.
        corrector: reuses each answer once more, at no evaluation.
        pseudo: see `Pseudo`.
        correct_from: half log-SNR from which the corrector acts: the "half corrector" for strong guidance.

    Raises:
        ArgumentError: another order.
    """
    if order not in (1, 2, 3):
        raise ArgumentError("order", order, "an order of 1, 2 or 3")
    split = measured(statistics, pseudo, correct_from)
    label = f"dpm-solver-v3-{order}{'c' if corrector else ''}" + (f"-pseudo-{pseudo}" if pseudo != "none" else "")
    return Exponential(split, order, corrector, label=label, final=final)


def run_shifted(program: Program, statistics: Statistics, denoise: Denoise, x: Tensor) -> Tensor:
    """Walk a program of measured statistics from `x` `(batch, *event)` to its end, through the shifted coordinates of the module.

    Raises:
        ArgumentError: a program over another space.
    """
    if program.space is not statistics.space:
        raise ArgumentError("program", program.name, "a program that was compiled with these statistics")
    process, split = program.process, measured(statistics)

    def of(t: float) -> tuple[Tensor, Tensor]:
        state, answer = (_lifted(split, v, x) for v in split.shift(float(process.half_log_snr(t))))
        return float(process.alpha(t)) * state, answer

    def shifted(y: Tensor, t: float) -> Tensor:
        state, answer = of(t)
        return denoise(y - state, t) + answer

    return run(program, shifted, x + of(program.times[0])[0]) - of(program.times[-1])[0]


def _lifted(split: Measured, value: Tensor, like: Tensor) -> Tensor:
    """A vector over the modes as an event."""
    value = value.to(like)
    if split.space is None:
        return value
    return split.space.to(like.dtype, like.device).covariance.lift(value[None]).reshape(like.shape[1:])


def _half_log_snr(alpha: float, sigma: float) -> float:
    return math.log(alpha / sigma) if alpha > 0 and sigma > 0 else math.inf if alpha else -math.inf


def _divided(lam: Tensor, base: float, nodes: Sequence[float]) -> list[Tensor]:
    """The weights of the nodes in `sum_k f[base, ..., k] u^k`: Newton's polynomial with every factor at the base."""
    ranked = [base, *(n for n in reversed(nodes) if n != base)]
    u = lam - base
    out = {n: torch.zeros_like(lam) for n in ranked}
    for k in range(len(ranked)):
        for n in ranked[: k + 1]:
            out[n] = out[n] + u**k / math.prod(n - m for m in ranked[: k + 1] if m != n)
    return [out[n] for n in nodes]
