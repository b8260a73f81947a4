"""064: a flow step is a restoration and a degradation; the window between them decides whether the sampler converges."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfumato.atlas.row import Check, Row, at_least, at_most, close, control, within
from sfumato.atlas.solvers.pictures import draw_curves
from sfumato.atlas.solvers.worlds import l1
from sfumato.exact import Line, LineDensity, fokker_planck
from sfumato.noise import VariancePreserving
from sfumato.sample import Program, Restoration, ddim, response
from sfumato.sample import Row as Entry
from sfumato.sample.steps.restoration import restoration_step

_OU = VariancePreserving(4.0, 4.0)
"""Its clock is twice our time: from 2 to 0.2 below."""

_LINE, _FINEST, _LATE, _EARLY = Line(-3.0, 3.0, 1200), 1600, 0.5, 0.02


def _spread_error(program: Program) -> float:
    """The relative error of the standard deviation at the end, for data of variance 0.3."""
    out, start = response(program, l1()), program.levels
    variance = float(start[0][0] ** 2 * l1().covariance.rest + start[1][0] ** 2)
    return math.sqrt(float(out.variance(variance) / out.target)) - 1


def _ou(window: int | float | str, steps: int) -> Program:
    return Restoration(window).compile(_OU, tuple(torch.linspace(1.0, 0.1, steps + 1, dtype=torch.float64).tolist()))


def _flipped(program: Program) -> Program:
    """The noise away from the iterate: of `y^ + c z` with `y^ = y + (k_b^2 - k_u^2) s` the second term with the other sign."""
    k = program.process.ratio(torch.tensor(program.times, dtype=torch.float64)).tolist()
    alpha, rows = program.levels[0].tolist(), [Entry()]
    for i, row in enumerate(program.rows[1:], start=1):
        pulled = 1 - float(row.states[i - 1]) * alpha[i - 1] / alpha[i]
        # p = (r - sqrt(r (r - d))) / k_b^2 with r = k_b^2 - k_u^2 and d = k_b^2 - k_i^2, and p' with the other sign of the root
        d, p = 1 - (k[i] / k[i - 1]) ** 2, pulled
        r = p**2 / (2 * p - d)
        other = torch.tensor([2 * r - p], dtype=torch.float64)
        rows.append(Entry({i - 1: alpha[i] / alpha[i - 1] * (1 - other)}, {i - 1: alpha[i] * other}))
    return Program(program.name, program.process, program.times, tuple(rows))


def _tables() -> Iterator[Check]:
    yield close("error of the balanced window at 50 steps", -_spread_error(_ou("balanced", 50)), 0.082, relative=0.02)
    program = _ou("whole", 50)
    other = ddim().compile(_OU, program.times)
    yield at_most("distance of the whole window's table to DDIM's", _distance(program, other), 1e-12)
    yield control(at_most("distance of the table of l = 4 to DDIM's", _distance(_ou(4, 50), other), 1e-12))
    collapsed = 1 + _spread_error(_flipped(_ou(16, 400)))
    yield control(at_least("relative std, l = 16, with the noise away from the iterate", collapsed, 0.9))


def _ornstein_uhlenbeck() -> Iterator[Check]:
    for window, expected in ((1, 0.879), (2, 0.30), (4, 0.14), (16, 0.033)):
        yield close(f"plateau of the error of the std, l = {window}", -_spread_error(_ou(window, 1600)), expected, relative=0.03)
    errors = {window: [-_spread_error(_ou(window, n)) for n in (400, 1600)] for window in (4, 16)}
    yield within("plateau at l = 4 over that at l = 16", errors[4][1] / errors[16][1], 3.3, 5)
    yield control(at_least("order of l = 4, 400 to 1600 steps", math.log(errors[4][0] / errors[4][1], 4), 0.38))
    for kind, expected, slack in (("balanced", 0.5, 0.12), ("whole", 1.0, 0.05)):
        coarse, fine = (-_spread_error(_ou(kind, n)) for n in (400, 1600))
        yield close(f"order of the window {kind}, 400 to 1600 steps", math.log(coarse / fine, 4), expected, absolute=slack)


def _distance(one: Program, other: Program) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(one.dense(), other.dense(), strict=True))


def _well(x: Tensor, _: float) -> Tensor:
    return -2 * x * (x**2 - 1)


@functools.cache
def _densities() -> tuple[LineDensity, ...]:
    """The forward law at `_FINEST + 1` times from `_EARLY` to `_LATE`: a double well forgets three bumps."""
    x = _LINE.centres
    bumps = sum(w * torch.exp(-0.5 * ((x - m) / 0.1) ** 2) for m, w in ((-1.5, 0.3), (0.2, 0.2), (1.5, 0.5)))
    gap = (_LATE - _EARLY) / _FINEST

    def noise(at: Tensor, _: float) -> Tensor:
        # upwind differences add the diffusion |f| w / 2 of their own
        return 1 - _well(at, 0.0).abs() * _LINE.width / 2

    first = [_EARLY * i / 200 for i in range(201)]
    out = [fokker_planck(LineDensity(_LINE, torch.as_tensor(bumps)), first, _well, noise)]
    for i in range(_FINEST):
        t = _EARLY + i * gap
        out.append(fokker_planck(out[-1], [t, t + gap], _well, noise))
    return tuple(out)


def _score(x: Tensor, t: float) -> Tensor:
    values = _densities()[round((t - _EARLY) / (_LATE - _EARLY) * _FINEST)].values.clamp(min=1e-300).log()
    slope = (values[1:] - values[:-1]) / _LINE.width
    return torch.from_numpy(np.interp(x.numpy(), _LINE.faces[1:-1].numpy(), slope.numpy()))


def _transported(steps: int, step: Callable[[Tensor, float, float], Tensor]) -> float:
    """The 1-Wasserstein distance of 4000 transported quantiles to those of the early law."""
    level = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    x, h = _densities()[-1].quantile(level), (_LATE - _EARLY) / steps
    for i in range(steps):
        x = step(x, _LATE - i * h, h)
    return float((x.sort().values - _densities()[0].quantile(level)).abs().mean())


def _restored(window: float | None) -> Callable[[Tensor, float, float], Tensor]:
    def step(x: Tensor, t: float, h: float) -> Tensor:
        length = min(h**-0.5 if window is None else window, t / h)
        return restoration_step(x, t, h, max(length, 1.0), _score, _well, lambda _: math.sqrt(2))

    return step


def _flow(x: Tensor, t: float, h: float) -> Tensor:
    return x - h * (_well(x, t) - _score(x, t))


def _double_well() -> Iterator[Check]:
    balanced = {n: _transported(n, _restored(None)) for n in (50, 100, 400, 1600)}
    plateau = _transported(400, _restored(2.0))
    yield close("W1 of l = h^-1/2 at 50 steps", balanced[50], 0.093, relative=0.1)
    yield at_least("order of l = h^-1/2, 400 to 1600 steps", math.log(balanced[400] / balanced[1600], 4), 0.3)
    yield at_most("W1 at 1600 steps over that of l = 2 at 400", balanced[1600] / plateau, 0.5)
    yield close("plateau of l = 2", plateau, 0.095, relative=0.1)
    yield control(
        at_most("l = 2 at 400 steps over l = 2 at 50 steps: it does not converge", plateau / _transported(50, _restored(2.0)), 0.5)
    )
    yield at_most("W1 of Euler's method on the flow at 400 steps", _transported(400, _flow), 0.01)
    wrong = _transported(400, lambda x, t, h: x + h * (_well(x, t) - _score(x, t)))
    yield control(at_most("the same with the wrong sign", wrong, 0.01))


@functools.cache
def _curves(steps: tuple[int, ...]) -> dict[str, list[float]]:
    windows: dict[str, str | float] = {"window grows as the step falls": "balanced", "window of 2 steps": 2, "whole window (DDIM)": "whole"}
    return {name: [abs(_spread_error(_ou(window, n))) for n in steps] for name, window in windows.items()}


def figure(ax: Any) -> None:
    """Error of the standard deviation, exact on Gaussian data: with a window of a fixed number of steps smaller steps do not help, with
    one that grows the sampler converges, and with the whole of it, which is DDIM, with order 1.
    """
    steps = (25, 50, 100, 200, 400)
    draw_curves(ax, steps, _curves(steps), "relative error of the std")


ROW = Row(
    id="064",
    slug="restoration-degradation",
    title="Restoration-Degradation Beyond Linear Diffusions: A Non-Asymptotic Analysis For DDIM-Type Samplers",
    authors="Sitan Chen, Giannis Daras, Alexandros G. Dimakis",
    year=2023,
    arxiv="2303.03384",
    claim="Restoring by the score and degrading with the noise that points back at the iterate is a sampler for any forward process; it "
    "converges when the window grows as the step falls, and is DDIM when it restores to clean.",
    reproduced="yes",
    checks=(_tables, _ornstein_uhlenbeck, _double_well),
    figure=figure,
)
