"""Bespoke solvers: consistent for any numbers, a change of schedule in disguise, of order 2 on smooth curves, and better once fitted."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.noise import FlowMatching, Trigonometric, over_events
from sfumato.sample import reference, run, uniform_time
from sfumato.sample.compilers.runge_kutta import RungeKutta
from sfumato.sample.fits.bespoke import Warp, bespoke_program, step_weights
from sfumato.sample.fits.bespoke_fit import BespokeSettings, _loss, _spline, _steps, fit_bespoke
from sfumato.sample.fits.calibration import Starts
from sfumato.sample.fits.reference import Trajectory
from sfumato.sample.judges.consistency import consistency

PROCESS = FlowMatching()


@pytest.fixture(scope="module")
def world(g4):
    denoiser = g4.denoiser(PROCESS)
    starts = [Starts.prior(PROCESS, (2,), n, seed) for n, seed in ((256, 1), (256, 2))]
    paths = [reference(denoiser.denoise, s.states, PROCESS, g4.gaussian(), uniform_time(120)) for s in starts]
    return denoiser, *starts, *paths


def rms(program, world):
    denoiser, _, judge, _, path = world
    return float((run(program, denoiser.denoise, judge.states) - path.end).square().mean().sqrt())


def random_warp(steps, stages, seed=0):
    generator = torch.Generator().manual_seed(seed)
    n = steps * stages
    draw = torch.rand(4, n + 1, generator=generator, dtype=torch.float64) + 0.5
    tau = torch.cat([torch.zeros(1, dtype=torch.float64), draw[0, 1:].cumsum(0) / draw[0, 1:].sum()])
    return Warp(stages, tau, draw[1] / draw[1, 0], draw[2, 1:], draw[3, 1:] - 1)


def step_by_hand(denoiser, warp, x, n):
    """Step `n` of Euler's or the midpoint method on `d(s x)/dr = (s'/s)(s x) + tau' s u`, with the denoiser's own velocity."""
    i, h = n * warp.stages, 1 / warp.steps

    def slope(z, i):
        s = warp.scale[i]
        u = -denoiser.velocity(z / s, float(1 - warp.tau[i]))
        return warp.scale_rate[i] / s * z + warp.tau_rate[i] * s * u

    z = x * warp.scale[i]
    z = z + h * (slope(z, i) if warp.stages == 1 else slope(z + h / 2 * slope(z, i), i + 1))
    return z / warp.scale[i + warp.stages]


@pytest.mark.parametrize(("stages", "method"), [(1, "euler"), (2, "midpoint")])
def test_the_identity_is_runge_kutta(stages, method):
    ours, theirs = bespoke_program(PROCESS, Warp.of(5, stages)), RungeKutta(method, "time").compile(PROCESS, uniform_time(5))
    torch.testing.assert_close(torch.tensor(ours.times), torch.tensor(theirs.times))
    for a, b in zip(ours.dense(), theirs.dense(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("stages", [1, 2])
def test_steps_are_the_runge_kutta_method_of_the_transformed_equation(world, stages):
    """Independent of the table: integrate `d(s x)/dr = (s'/s)(s x) + tau' s u` step by step, with the denoiser's own velocity."""
    denoiser, _, judge, _, _ = world
    warp, x = random_warp(4, stages), judge.states[:8]
    out = run(bespoke_program(PROCESS, warp), denoiser.denoise, x)
    for n in range(4):
        x = step_by_hand(denoiser, warp, x, n)
    torch.testing.assert_close(out, x, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("stages", [1, 2])
def test_the_fit_takes_the_same_steps_all_at_once(world, stages):
    """Each from a state of its own; the loss of the last step alone is how far it ends from the path, a root mean square a sample."""
    denoiser, _, judge, _, path = world
    warp, x = random_warp(4, stages), judge.states[:32].reshape(4, 8, 2)
    by_hand = torch.stack([step_by_hand(denoiser, warp, x[n], n) for n in range(4)])
    torch.testing.assert_close(_steps(denoiser, warp, step_weights(warp), x), by_hand, rtol=1e-10, atol=1e-12)
    rows = torch.tensor([5, 0, 9])
    points, _ = _spline(path)(warp.tau[:: warp.stages], rows)
    away = (step_by_hand(denoiser, warp, points[-2], 3) - points[-1]).square().mean(1).sqrt().mean()
    torch.testing.assert_close(_loss(denoiser, warp, _spline(path), rows, last_only=True), away, rtol=1e-9, atol=0)


@pytest.mark.parametrize("stages", [1, 2])
def test_the_loss_is_the_distance_where_its_bounds_are_met(stages):
    """A belief of `(1 + t) x` has the slope `u = x`, by which every step stretches by exactly its Lipschitz constant. Along a path that
    stays at one point the steps' errors line up: the sum of grown errors is how far the whole table ends from that point.
    """
    warp, spot = random_warp(4, stages), torch.tensor([[1.0, -2.0], [0.5, 0.1], [3.0, 0.0]], dtype=torch.float64)
    sizes = torch.exp(-(torch.linspace(0, 1, len(warp.tau), dtype=torch.float64) ** 2))
    warp = Warp(stages, warp.tau, sizes, warp.tau_rate, warp.scale_rate.abs())

    class Stretching(Denoiser):
        process = PROCESS

        def denoise(self, x, t, condition=None):
            return over_events(1 + torch.as_tensor(t, dtype=torch.float64), x) * x

    still, rows = Trajectory(PROCESS, uniform_time(6), (spot,) * 7), torch.tensor([0, 2])
    found = _loss(Stretching(), warp, _spline(still), rows, last_only=False)
    away = (run(bespoke_program(PROCESS, warp), Stretching().denoise, spot) - spot)[rows]
    torch.testing.assert_close(found, away.square().mean(1).sqrt().mean(), rtol=1e-9, atol=0)


def test_a_change_of_schedule_is_a_warp(g4):
    """The midpoint method on the circle `(cos, sin)` is the bespoke solver on the straight line with `tau = 1 - k/(1 + k)`,
    `s = alpha' / alpha = sin + cos`, to rounding.
    """
    other = Trigonometric()
    steps = 6
    x = Starts.prior(other, (2,), 16, 3).states
    theirs = run(RungeKutta("midpoint", "time").compile(other, uniform_time(steps)), g4.denoiser(other).denoise, x)

    def scale(r):
        # 1 / (alpha + sigma) of the circle brings its states to the line, whose own sum is 1
        return torch.sin(math.pi / 2 * r) + torch.cos(math.pi / 2 * r)

    warp = Warp.of(steps, 2, lambda r: torch.sin(math.pi / 2 * r) / scale(r), scale)
    ours = run(bespoke_program(PROCESS, warp), g4.denoiser(PROCESS).denoise, x)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_smooth_curves_keep_the_order(world):
    """Measured: 2.00 with a wavy warp and scale, against 2 for the plain method."""

    def program(n):
        return bespoke_program(
            PROCESS, Warp.of(n, 2, lambda r: r + 0.08 * torch.sin(2 * math.pi * r), lambda r: torch.exp(0.4 * torch.sin(3 * r)))
        )

    assert math.log2(rms(program(20), world) / rms(program(40), world)) == pytest.approx(2, abs=0.15)


def test_a_fitted_solver_beats_the_plain_one_on_unseen_starts(world):
    """At two steps of two evaluations, and at four of one, after 100 iterations. Measured: 0.50 and 0.25 of the plain error."""
    denoiser, fit, _, path, _ = world
    for steps, stages, limit in ((2, 2, 0.65), (4, 1, 0.4)):
        table, warp = fit_bespoke(denoiser, fit, path, steps, stages, settings=BespokeSettings(100))
        plain = bespoke_program(PROCESS, Warp.of(steps, stages))
        assert table.program.evaluations == plain.evaluations == steps * stages
        assert table.error(denoiser.denoise, world[2], world[4].end) < limit * rms(plain, world)
        assert sum(len(v) for v in table.coefficients) == 4 * steps * stages + 2  # 4n - 1 or 8n - 1, and three fixed ends
        assert bool((warp.tau.diff() > 0).all())
        assert consistency(bespoke_program(PROCESS, Warp.of(steps, stages))).data < 1e-12
        with pytest.raises(ArgumentError, match="not fitted on"):
            table.error(denoiser.denoise, fit, path.end)


def test_ablations_leave_the_rest_alone(world):
    denoiser, fit, _, path, _ = world
    short = BespokeSettings(3)
    _, time = fit_bespoke(denoiser, fit, path, 2, free="time", settings=short)
    _, scale = fit_bespoke(denoiser, fit, path, 2, free="scale", settings=short)
    identity = Warp.of(2)
    assert torch.equal(time.scale, identity.scale)
    assert torch.equal(time.scale_rate, identity.scale_rate)
    assert not torch.equal(time.tau, identity.tau)
    torch.testing.assert_close(scale.tau, identity.tau)
    assert not torch.equal(scale.scale, identity.scale)


def test_the_loss_sees_its_gradient_in_the_times(world):
    """Against differences of the loss: the moving nodes and the derivative in time are right. (The nodes' `[tau]` is held at its place.)"""
    denoiser, _, _, path, _ = world
    base = random_warp(2, 2)
    base = Warp(2, base.tau, base.scale, torch.ones(4, dtype=torch.float64), base.scale_rate)
    spline, rows = _spline(path), torch.arange(16)

    def loss(tau):
        return _loss(denoiser, Warp(2, tau, base.scale, base.tau_rate, base.scale_rate), spline, rows, last_only=False)

    tau = base.tau.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(tau), tau)
    for i in (1, 2, 3):
        away = torch.zeros_like(base.tau)
        away[i] = 1e-5
        measured = float(loss(base.tau + away) - loss(base.tau - away)) / 2e-5
        assert float(gradient[i]) == pytest.approx(measured, rel=2e-3, abs=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Warp.of(0),
        lambda: Warp.of(2, 3),
        lambda: Warp.of(2, 2, lambda r: 1 - r),
        lambda: Warp.of(2, 2, None, lambda r: r - 0.5),
        lambda: Warp(2, torch.linspace(0, 1, 5), torch.ones(4), torch.ones(4), torch.zeros(4)),
    ],
)
def test_what_is_no_warp_is_refused(make):
    with pytest.raises(ArgumentError):
        make()


def test_paths_of_other_starts_are_refused(world):
    denoiser, fit, judge, path, _ = world
    with pytest.raises(ArgumentError, match="path"):
        fit_bespoke(denoiser, judge, path, 2)
    with pytest.raises(ArgumentError, match="steps"):
        fit_bespoke(denoiser, fit, path, 0)


@pytest.mark.parametrize(("options", "rate"), [({}, 0.02), ({"rate": 0.1}, 0.1)])
def test_the_first_iteration_moves_every_number_by_the_rate(world, options, rate):
    """As Adam does, whatever the gradients: 0.02 unless told. The identity has scales of 1, rates of time of 1 and of scale of 0."""
    denoiser, fit, _, path, _ = world
    table, warp = fit_bespoke(denoiser, fit, path, 2, settings=BespokeSettings(1, **options))
    moved = torch.cat([warp.scale[1:].log(), warp.scale_rate, warp.tau_rate - 1])
    torch.testing.assert_close(moved.abs(), torch.full_like(moved, rate), rtol=1e-4, atol=0)
    assert float(warp.scale[0]) == 1
    assert table.fitted_on == fit.keys


def test_a_path_of_eight_steps_is_enough_and_of_seven_is_not(g4):
    fit = Starts.marginal(g4, PROCESS, 1.0, 4, 0)
    for steps in (8, 7):
        path = reference(g4.denoiser(PROCESS).denoise, fit.states, PROCESS, g4.gaussian(), uniform_time(steps))
        if steps == 8:
            assert fit_bespoke(g4.denoiser(PROCESS), fit, path, 2, settings=BespokeSettings(iterations=1))
            continue
        with pytest.raises(ArgumentError, match="path"):
            fit_bespoke(g4.denoiser(PROCESS), fit, path, 2)
