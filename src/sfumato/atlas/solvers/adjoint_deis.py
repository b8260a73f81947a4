"""001: gradients through the probability flow and the reverse SDE by exponential steps of the adjoint."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor

from sfumato.atlas.row import Check, Row, at_least, at_most, close, control, holds
from sfumato.atlas.solvers.pictures import draw_curves
from sfumato.atlas.solvers.worlds import PROCESS, denoiser, g4, grid, l1, starts
from sfumato.exact import GaussianMixture
from sfumato.sample import Ancestral, Program, Trajectory, dpm_solver, run, unipc
from sfumato.sample.continuous.adjoint import adjoint, adjoint_from_end, program_gradient
from sfumato.sample.steps.cycle import cycle_encode
from sfumato.seeds import noise

F64 = torch.float64
_STEPS = (20, 40, 80, 160)
_FINE = 320
_GOAL = torch.tensor([0.7, -0.4], dtype=F64)


def _loss(x: Tensor) -> Tensor:
    return 0.5 * (x - _GOAL).square().sum()


def _start() -> Tensor:
    return starts()[:8]


def _followed(program: Program) -> Trajectory:
    """The states of a program, the last one at every time."""
    kept: dict[float, Tensor] = {}
    draws = noise(3, 8, (2,), dtype=F64) if program.draws else None
    run(program, denoiser().denoise, _start(), draws, lambda event: kept.update({event.time: event.state}))
    times = tuple(sorted(kept, reverse=True))
    return Trajectory(PROCESS, times, tuple(kept[t] for t in times))


def _every(path: Trajectory, n: int) -> Trajectory:
    skip = (len(path.times) - 1) // n
    return Trajectory(PROCESS, path.times[::skip], path.states[::skip])


@functools.cache
def _flow() -> tuple[Trajectory, Tensor, Tensor]:
    """320 steps of order 4, the exact gradient of that program, and the gradient for a shift `z` of the belief, `D + z`."""
    program, shift = unipc(3, final="full").compile(PROCESS, grid(_FINE)), torch.zeros(2, dtype=F64, requires_grad=True)
    _, found = program_gradient(program, lambda x, t: denoiser().denoise(x, t) + shift, _start(), _loss, parameters=[shift])
    return _followed(program), found.start, found.parameters[0]


@functools.cache
def _errors(order: Literal[1, 2], *, stochastic: bool = False, steps: tuple[int, ...] = _STEPS) -> list[float]:
    path, exact, _ = _flow()
    out = []
    for n in steps:
        found = adjoint(denoiser().denoise, _every(path, n), path.end - _GOAL, order=order, stochastic=stochastic)
        out.append(float((found.start - exact).abs().max()))
    return out


def _slope(errors: Sequence[float]) -> float:
    return math.log2(errors[-2] / errors[-1])


def _gaussian() -> Iterator[Check]:
    """Check 1 where the flow is a scale, so that its gradient is one too; no other reference is needed."""
    belief, x = l1().denoiser(PROCESS), torch.tensor([[-1.5], [0.4], [2.0]], dtype=F64)
    errors: dict[tuple[Literal[1, 2], bool], list[float]] = {(1, False): [], (2, False): [], (2, True): []}
    for n in (80, 160):
        times = grid(n)
        path = Trajectory(PROCESS, times, (x, *(l1().flow(PROCESS, times[0], t)(x) for t in times[1:])))
        exact = float(path.end[0] / x[0]) * (path.end - 1)
        for (order, doubled), found in errors.items():
            error = adjoint(belief.denoise, path, path.end - 1, order=order, stochastic=doubled).start - exact
            found.append(float((error / exact).abs().max()))
    yield close("Gaussian, order 1: measured order", _slope(errors[1, False]), 1.0, absolute=0.15)
    yield close("Gaussian, order 2M: measured order", _slope(errors[2, False]), 2.0, absolute=0.15)
    yield at_most("Gaussian, order 2M, 160 steps: relative error", errors[2, False][-1], 0.02)
    yield control(at_most("the same, products doubled as for the SDE", errors[2, True][-1], 0.02))


def _orders() -> Iterator[Check]:
    """Check 1: G4, L = |x_end - c|^2 / 2, 8 starts, N = 20 ... 160."""
    path, exact, shift_exact = _flow()
    h, one, two = 1e-5, _errors(1), _errors(2)
    moved = [run(unipc(3, final="full").compile(PROCESS, grid(_FINE)), denoiser().denoise, _start() + s * h) for s in (1.0, -1.0)]
    along = (0.5 * (moved[0] - _GOAL).square().sum(1) - 0.5 * (moved[1] - _GOAL).square().sum(1)) / (2 * h)
    yield at_most("reference gradient against finite differences along (1, 1)", float((along - exact.sum(1)).abs().max()), 1e-7)
    yield close("order 1: measured order", _slope(one), 1.0, absolute=0.1)
    yield close("order 2M: measured order", _slope(two), 2.0, absolute=0.15)
    shown = ", ".join(f"{e:.2g}" for e in two)
    yield holds("order 2M: errors", shown, "falling; 1.5, .30, .067, .016 on the card", all(a > b for a, b in itertools.pairwise(two)))
    errors = []
    for n in (80, 160):
        z = torch.zeros(2, dtype=F64, requires_grad=True)
        belief = lambda x, t, z=z: denoiser().denoise(x, t) + z  # noqa: E731
        found = adjoint(belief, _every(path, n), path.end - _GOAL, parameters=[z])
        errors.append(float((found.parameters[0] - shift_exact).abs().max()))
    yield close("order 2M, gradient for a shift of the belief: measured order", _slope(errors), 2.0, absolute=0.15)
    yield control(at_most("products doubled as for the SDE: error at N = 160", _errors(2, stochastic=True, steps=(160,))[0], 0.1))
    carried = float(PROCESS.alpha(path.times[-1]) / PROCESS.alpha(path.times[0])) * (path.end - _GOAL)
    yield control(at_most("products dropped (J = 0): error", float((carried - exact).abs().max()), 0.1))


def _stochastic() -> Iterator[Check]:
    """Check 2: the reverse SDE on one Brownian path of 320 steps; cycle encoding."""
    program = Ancestral(1.0).compile(PROCESS, grid(_FINE))
    path = _followed(program)
    draws = noise(3, 8, (2,), dtype=F64)
    _, found = program_gradient(program, denoiser().denoise, _start(), _loss, draws=draws)
    errors = {}
    for doubled in (True, False):
        each = [
            adjoint(denoiser().denoise, _every(path, n), path.end - _GOAL, order=1, stochastic=doubled).start - found.start for n in _STEPS
        ]
        errors[doubled] = [float(e.abs().max()) for e in each]
    shown = ", ".join(f"{e:.2g}" for e in errors[True])
    falls = all(a > b for a, b in itertools.pairwise(errors[True]))
    yield holds("SDE, doubled products: errors for N = 20 ... 160", shown, "falling", falls)
    yield at_most("SDE, doubled products: error at N = 160", errors[True][-1], 0.05)
    yield control(at_most("SDE, products not doubled: error at N = 160", errors[False][-1], 0.05))
    coarse, samples = Ancestral(1.0).compile(PROCESS, grid(20)), path.end
    code = cycle_encode(coarse, denoiser().denoise, samples, seed=5)
    back = run(coarse, denoiser().denoise, code.start, code)
    yield at_most("cycle encoding: distance of the sample made again", float((back - samples).abs().max()), 1e-10)
    fresh = run(coarse, denoiser().denoise, code.start, noise(6, 8, (2,), dtype=F64))
    yield control(at_most("cycle encoding with other draws: distance", float((fresh - samples).abs().max()), 1e-10))


def _arrived(x: Tensor, t: float) -> Tensor:
    """Whether samples belong to the first component of G4, noised to `t`."""
    noisy = cast(GaussianMixture, g4().through(PROCESS, t))
    return noisy.responsibilities(x)[:, 0] > 0.5


def _optimised(discrete: bool, steps: int = 20) -> tuple[float, float]:
    """The share of 8 latents that reach the first component within 20 gradient steps, and the last mean loss."""
    x, belief, times = _start().clone(), denoiser(), grid(steps)
    program, centre = dpm_solver(2).compile(PROCESS, times), float(PROCESS.alpha(times[-1])) * g4().means[0]

    def loss(end: Tensor) -> Tensor:
        return 0.5 * (end - centre).square().sum()

    for _ in range(20):
        if discrete:
            _, found = program_gradient(program, belief.denoise, x, loss)
        else:
            end = run(program, belief.denoise, x)
            found = adjoint_from_end(belief.denoise, PROCESS, times, end, end - centre)
        x = x - 0.5 * found.start
    end = run(program, belief.denoise, x)
    inside = _arrived(end, times[-1])
    return float(inside.double().mean()), float(loss(end)) / 8


def _steering() -> Iterator[Check]:
    """Check 3: latents steered to a component, and the sampler's own gradient as the alternative."""
    share, value = _optimised(False)
    exact_share, exact_value = _optimised(True)
    yield at_least("share of latents at the chosen component, adjoint with states found again", share, 0.9)
    yield at_least("the same with the program's own gradient", exact_share, 0.9)
    before = _arrived(_flow()[0].end, grid(20)[-1])
    yield control(at_least("share before any gradient step", float(before.double().mean()), 0.9))
    _, own = program_gradient(dpm_solver(2).compile(PROCESS, grid(20)), denoiser().denoise, _start(), _loss)
    error = float((own.start - _flow()[1]).abs().max())
    ours = _errors(2, steps=(20,))[0]
    told = f"{ours:.2g} against {error:.2g}; losses reached {value:.2g} against {exact_value:.2g}"
    name = "N = 20: error of the adjoint's gradient against that of differentiating the program"
    yield holds(name, told, "the program's is nearer: discretise, then differentiate", error < ours)


@functools.cache
def _gaussian_errors(order: Literal[1, 2], stochastic: bool, steps: tuple[int, ...]) -> list[float]:
    """The largest relative error of the gradient of `|x_end - 1|^2 / 2` where the flow is a scale."""
    belief, x, out = l1().denoiser(PROCESS), torch.tensor([[-1.5], [0.4], [2.0]], dtype=F64), []
    for n in steps:
        path = Trajectory(PROCESS, grid(n), (x, *(l1().flow(PROCESS, grid(n)[0], t)(x) for t in grid(n)[1:])))
        exact = path.end / x * (path.end - 1)
        found = adjoint(belief.denoise, path, path.end - 1, order=order, stochastic=stochastic).start
        out.append(float((found / exact - 1).abs().max()))
    return out


def figure(ax: Any) -> None:
    """Error of the gradient of a loss at the end of the flow, on Gaussian data: steps of order 2 fall twice as fast as those of order 1.
    With the products doubled, as the SDE needs them, the gradient of the flow stays wrong however small the steps.
    """
    steps = (20, 40, 80)
    curves = {
        "order 2M": _gaussian_errors(2, False, steps),
        "order 1": _gaussian_errors(1, False, steps),
        "2M, products doubled": _gaussian_errors(2, True, steps),
    }
    draw_curves(ax, steps, curves, "relative error of the gradient")


ROW = Row(
    id="001",
    slug="adjoint-deis",
    title="AdjointDEIS: Efficient Gradients for Diffusion Models",
    authors="Zander W. Blasingame, Chen Liu",
    year=2024,
    arxiv="2405.15020",
    claim=(
        "Exponential steps solve the adjoint of the probability flow with orders 1 and 2 in constant memory, and of the reverse SDE by "
        "doubling their products; at 20 steps, differentiating the sampler itself gives a nearer gradient, as the authors now advise."
    ),
    reproduced="yes",
    checks=(_gaussian, _orders, _stochastic, _steering),
    figure=figure,
)
