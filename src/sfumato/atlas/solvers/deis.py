"""127: DEIS. Left out: the FID of images, and SSPRK3, whose stages go back in time, which a program's nodes do not."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

from sfumato.atlas.row import Check, Row, at_most, close, control, holds, within
from sfumato.atlas.solvers.pictures import draw_curves
from sfumato.atlas.solvers.worlds import FIRST, LAST, PROCESS, denoiser, ends, order, starts
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.sample import TABLEAUS, Linearisation, Program, RungeKutta, Solver, ddim, deis, ipndm, response, run, uniform_time
from sfumato.sample.compilers.stepping import Scale, StepTable

_DEGENERATE = Gaussian(torch.zeros(1, dtype=torch.float64), SpectralCovariance.isotropic(1, 1e-4))


def _over_time(solver: Solver, power: float) -> Callable[[int], Program]:
    """Steps equal in `t^(1/power)` between the ends of the other rows' grids."""
    start, end = (float(PROCESS.time(v)) for v in (FIRST, LAST))
    return lambda n: solver.compile(PROCESS, uniform_time(n, start, end, power))


def orders() -> Iterable[Check]:
    """Polynomials in time on a grid equal in time, in the ratio on a quadratic one, and Runge-Kutta methods over the ratio."""
    cases: tuple[tuple[Scale, float], ...] = (("time", 1.0), ("ratio", 2.0))
    for variable, power in cases:
        for steps in (1, 2, 3, 4):
            solver = deis(steps, variable=variable, start="exact")
            # degree 3 in time gains from the grid: the card's run had 4.4, from a fine start
            slack = 0.15 if steps < 3 else 0.2
            measured = order(_over_time(solver, power), (80, 160) if steps < 4 else (160, 320))
            yield close(f"{'t' if power == 1 else 'rho'}AB-{steps - 1}: order", measured, steps, absolute=slack)
    ramp = order(_over_time(deis(4, variable="time"), 1.0), (160, 320))
    yield control(close("tAB-3 after a ramped start: order", ramp, 4, absolute=0.2))
    for name, method in TABLEAUS.items():
        yield close(f"rhoRK {name}: order", order(RungeKutta(name), (40, 80)), method.order, absolute=0.15 if method.order < 3 else 0.2)
    measured = order(ipndm(4))
    yield close("iPNDM-4 on a curved grid: order", measured, 2, absolute=0.15)
    yield control(close("iPNDM-4 on a curved grid: order against 4", measured, 4, absolute=0.2))


def closed_form_weights() -> Iterable[Check]:
    """rhoAB-1 by its polynomial's integral, and tAB-0 is DDIM."""
    times = uniform_time(6, 0.9, 0.1)
    row = deis(2, variable="ratio").compile(PROCESS, times).rows[3].data
    p, s, t = (float(PROCESS.ratio(times[i])) for i in (1, 2, 3))
    alpha = float(PROCESS.alpha(times[3]))
    newer = ((t - p) ** 2 - (s - p) ** 2) / (2 * (s - p))
    older = (t - s) ** 2 / (2 * (p - s))
    # eps = (x / alpha - D) / rho, so a weight on eps is one of -1 / rho on D
    gap = max(abs(float(row[2]) + alpha * newer / s), abs(float(row[1]) + alpha * older / p))
    yield at_most("rhoAB-1: gap to the closed form", gap, 1e-12)
    programs = [s.compile(PROCESS, times) for s in (deis(1, variable="time"), ddim())]
    x = [run(program, denoiser().denoise, starts()) for program in programs]
    yield at_most("tAB-0 against DDIM: largest difference", float((x[0] - x[1]).abs().max()), 1e-12)


def _spread(program: Program) -> float:
    """The relative error of the standard deviation on data of variance 1e-4."""
    out = response(program, _DEGENERATE)
    start = float(PROCESS.alpha(program.times[0])) ** 2 * 1e-4 + float(PROCESS.sigma(program.times[0])) ** 2
    return float((out.variance(start) / out.target).sqrt()) - 1


def _frozen_score(times: Sequence[float]) -> Program:
    """The same integrator with the score held over a step in place of the noise: `eps` at the node, times `sigma_u / sigma_b` inside."""
    table, noise = StepTable(PROCESS, tuple(times)), Linearisation.noise()
    points, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(64))
    for i in range(1, len(times)):
        low, high = table.half_log_snr[i - 1], table.half_log_snr[i]
        lam = low + (high - low) * (points + 1) / 2
        moved = -(high - low) / 2 * float((weights * PROCESS.sigma(PROCESS.time(lam)) * torch.exp(-lam)).sum())
        weight = -table.alpha[i] * moved / table.sigma[i - 1] * math.exp(low)
        table.combine(noise, i - 1, i - 1, i, [table.node(i - 1, i - 1)], [torch.tensor([weight], dtype=torch.float64)])
    return table.program("frozen score")


def ingredients() -> Iterable[Check]:
    """Near-degenerate data: the exponential form, the noise in place of the score, and the grid."""
    for n, power, euler, exponential in ((10, 1.0, 2.06, -0.26), (10, 2.0, 0.57, -0.18)):
        times = uniform_time(n, end=1e-3, power=power)
        grid = "equal" if power == 1 else "quadratic"
        plain, ours = (_spread(s.compile(PROCESS, times)) for s in (RungeKutta("euler", "time"), deis(1, variable="time")))
        yield close(f"Euler in t, {grid} grid: error of the standard deviation", plain, euler, absolute=0.01)
        yield close(f"tAB-0, {grid} grid: error of the standard deviation", ours, exponential, absolute=0.01)
        yield holds(f"tAB-0, {grid} grid: its error over Euler's", abs(ours / plain), "below 1/3", abs(ours) < abs(plain) / 3)
    for n, card in ((10, 15.27), (20, 7.88)):
        times = uniform_time(n, end=1e-3)
        score = _spread(_frozen_score(times))
        yield at_most(f"tAB-0, {n} steps: size of the error", abs(_spread(deis(1, variable="time").compile(PROCESS, times))), 0.3)
        yield close(f"score held, {n} steps: error of the standard deviation", score, card, relative=0.02)
        yield control(at_most(f"score held, {n} steps: size of the error", abs(score), 0.3))


def on_wide_data() -> Iterable[Check]:
    """On G4, whose data are wide, which of the two is held is within a factor of 2: the benefit belongs to thin data."""
    times = uniform_time(20, *(float(PROCESS.time(v)) for v in (FIRST, LAST)))
    errors = [
        float((run(p, denoiser().denoise, starts()) - ends()).abs().max())
        for p in (deis(1, variable="time").compile(PROCESS, times), _frozen_score(times))
    ]
    # the card has 1 within 20%; the score held is even the better one here
    yield within("G4, 20 steps: error with the score held over that with the noise held", errors[1] / errors[0], 0.5, 2)


@functools.cache
def _spreads(steps: tuple[int, ...]) -> dict[str, list[float]]:
    out: dict[str, list[float]] = {}
    for n in steps:
        times = uniform_time(n, end=1e-3)
        programs = {
            "noise held (DEIS, tAB-0)": deis(1, variable="time").compile(PROCESS, times),
            "score held": _frozen_score(times),
            "Euler in time": RungeKutta("euler", "time").compile(PROCESS, times),
        }
        for name, program in programs.items():
            out.setdefault(name, []).append(abs(_spread(program)))
    return out


def figure(ax: Any) -> None:
    """Thin data, of standard deviation 0.01: an exponential step that holds the predicted noise is off by a fraction of that width at any
    number of steps. Euler's method needs 40 steps for that; one that holds the score is two widths away after 80.
    """
    steps = (5, 10, 20, 40, 80)
    draw_curves(ax, steps, _spreads(steps), "relative error of the std")


ROW = Row(
    id="127",
    slug="deis",
    title="Fast Sampling of Diffusion Models with Exponential Integrator",
    authors="Qinsheng Zhang, Yongxin Chen",
    year=2023,
    arxiv="2204.13902",
    claim=(
        "An exponential integrator that extrapolates the predicted noise, not the score, as a polynomial in time or in the noise-to-signal"
        " ratio has the order of its polynomial and stays near thin data in few steps."
    ),
    reproduced="yes",
    checks=(closed_form_weights, ingredients, orders, on_wide_data),
    figure=figure,
)
