"""Gradients through sampling: closed forms of a Gaussian flow, autograd through the sampler, orders, memory, and noise that is replayed."""

from __future__ import annotations

import gc

import pytest
import torch
from jaxtyping import TypeCheckError

from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.metrics import fit_rate
from sfumato.noise import EDM, FlowMatching, VariancePreserving
from sfumato.sample import Ancestral, Trajectory, ddim, dpm_solver, run, uniform_log_snr, unipc
from sfumato.sample.continuous.adjoint import adjoint, adjoint_from_end, program_gradient
from sfumato.sample.steps.cycle import cycle_encode
from sfumato.seeds import noise

VARIANCES = torch.tensor([0.8, 0.2, 0.05], dtype=torch.float64)
MEAN = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
LAW = Gaussian(MEAN, SpectralCovariance.diagonal(VARIANCES))
GOAL = torch.tensor([0.5, 0.1, -0.3], dtype=torch.float64)


def times_of(process, n: int) -> tuple[float, ...]:
    start, end = (float(process.time(v)) for v in (-3.0, 2.0))
    return uniform_log_snr(process, n, start, end)


def flow(process, n: int) -> Trajectory:
    times = times_of(process, n)
    x = LAW.through(process, times[0]).sample(4, 0)
    return Trajectory(process, times, tuple(LAW.flow(process, times[0], t)(x) for t in times))


def exact_gradient(process, path: Trajectory) -> torch.Tensor:
    """The flow is linear mode by mode: dL/dx_start is the gain times dL/dx_end."""
    alpha, sigma = (f(torch.tensor([path.times[0], path.times[-1]], dtype=torch.float64)) for f in (process.alpha, process.sigma))
    size = torch.sqrt(alpha[:, None] ** 2 * VARIANCES + sigma[:, None] ** 2)
    return size[1] / size[0] * (path.end - GOAL)


@pytest.mark.parametrize("process", [VariancePreserving(), EDM(), FlowMatching()], ids=lambda p: p.kind)
@pytest.mark.parametrize("order", [1, 2])
def test_the_order_on_a_gaussian_flow(process, order):
    """Exact states, exact gradient: the slope of the error over 20, 40, 80 steps within 0.2 of the order."""
    errors = []
    for n in (20, 40, 80):
        path = flow(process, n)
        found = adjoint(LAW.denoiser(process).denoise, path, path.end - GOAL, order=order).start
        errors.append(float((found - exact_gradient(process, path)).abs().max()))
    rate = fit_rate([1 / n for n in (20, 40, 80)], errors)
    assert rate.slope == pytest.approx(order, abs=0.2)


def test_states_found_again_give_the_same_order():
    """Integrated back from the end: still order 2, and near what kept states give."""
    process, errors = VariancePreserving(), []
    for n in (20, 40, 80):
        path = flow(process, n)
        found = adjoint_from_end(LAW.denoiser(process).denoise, process, path.times, path.end, path.end - GOAL).start
        errors.append(float((found - exact_gradient(process, path)).abs().max()))
    assert fit_rate([1 / n for n in (20, 40, 80)], errors).slope == pytest.approx(2, abs=0.25)


@pytest.mark.parametrize("process", [VariancePreserving(), EDM(), FlowMatching()], ids=lambda p: p.kind)
def test_states_are_found_again_where_the_flow_was(process):
    """Of a belief that always says `c` the noise stays what it is: the way back asks at `alpha c + sigma eps`, whatever the steps."""
    times, asked = (0.8, 0.5, 0.35, 0.1), []
    eps = torch.tensor([[1.0, -0.4, 0.3], [0.2, 2.0, -1.5]], dtype=torch.float64)

    def belief(x, t):
        asked.append((t, x.detach()))
        return GOAL + 0 * x

    states = {t: process.alpha(t) * GOAL + process.sigma(t) * eps for t in times}
    adjoint_from_end(belief, process, times, states[0.1], eps)
    assert {t for t, _ in asked} == set(times)
    for t, x in asked:
        torch.testing.assert_close(x, states[t], rtol=1e-12, atol=1e-12)


def test_states_found_again_are_of_order_two(g4):
    """On a bent flow, where the gradient depends on them: against the adjoint on states of a program with ten times the steps or more."""
    process, gaps, fine = VariancePreserving(), [], {}
    denoise, x = g4.denoiser(process).denoise, g4.through(process, 0.6).sample(2, 0)
    program = dpm_solver(3).compile(process, uniform_log_snr(process, 80, 0.6, 0.4))
    run(program, denoise, x, None, lambda event: fine.update({event.time: event.state}))
    for n in (4, 8):
        path = Trajectory(process, program.times[:: 80 // n], tuple(fine[t] for t in program.times[:: 80 // n]))
        kept = adjoint(denoise, path, path.end).start
        gaps.append(float((adjoint_from_end(denoise, process, path.times, path.end, path.end).start - kept).abs().max()))
    assert gaps[1] > 1e-6
    assert 3 < gaps[0] / gaps[1] < 6


@pytest.mark.parametrize("order", [1, 2])
def test_parameters_against_autograd_through_the_sampler(order, g4):
    """A shift and a gain of the belief: the continuous gradients converge to those of a fine program; one unused parameter gets zeros."""
    process = VariancePreserving()
    shift, gain, unused = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in ([0.1, -0.1], 0.9, [1.0]))

    def belief(x, t):
        return gain * g4.denoiser(process).denoise(x, t) + shift

    program = unipc(3, final="full").compile(process, times_of(process, 80))
    x, kept = g4.through(process, program.times[0]).sample(3, 0), {}
    parameters = [shift, gain, unused]
    _, exact = program_gradient(program, belief, x, lambda y: 0.5 * y.square().sum(), parameters=parameters)
    with torch.no_grad():
        run(program, belief, x, None, lambda event: kept.update({event.time: event.state}))
    errors = []
    for skip in (4, 1):
        times = tuple(sorted(kept, reverse=True))[::skip]
        path = Trajectory(process, times, tuple(kept[t] for t in times))
        found = adjoint(belief, path, path.end, order=order, parameters=parameters)
        errors.append(max(float((a - b).abs().max()) for a, b in zip(found.parameters, exact.parameters, strict=True)))
        assert float(found.parameters[2]) == 0
    assert errors[0] / errors[1] > 0.8 * 4**order


def test_the_program_gradient_is_plain_autograd(g4):
    """Checkpointing changes nothing: against a graph of the whole walk, at few steps, where the flow's gradient is far off."""
    process = VariancePreserving()
    program = dpm_solver(2).compile(process, times_of(process, 6))
    x = g4.through(process, program.times[0]).sample(5, 0)
    value, found = program_gradient(program, g4.denoiser(process).denoise, x, lambda y: (y**3).sum())
    start = x.clone().requires_grad_(True)
    loss = (run(program, g4.denoiser(process).denoise, start) ** 3).sum()
    assert value == pytest.approx(float(loss.detach()), rel=1e-12)
    assert torch.allclose(found.start, torch.autograd.grad(loss, start)[0], rtol=1e-10, atol=1e-12)


def test_the_sde_needs_doubled_products():
    """On one Brownian path the program's gradient converges to the doubled adjoint; the plain one is the control, off for good."""
    process = VariancePreserving()
    program, draws = Ancestral(1.0).compile(process, times_of(process, 120)), noise(3, 4, (3,), dtype=torch.float64)
    x, kept = LAW.through(process, program.times[0]).sample(4, 0), {}
    belief = LAW.denoiser(process).denoise
    _, exact = program_gradient(program, belief, x, lambda y: 0.5 * (y - GOAL).square().sum(), draws=draws)
    run(program, belief, x, draws, lambda event: kept.update({event.time: event.state}))
    errors = {}
    for doubled in (True, False):
        path = Trajectory(process, program.times, tuple(kept[t] for t in program.times))
        found = adjoint(belief, path, path.end - GOAL, order=2, stochastic=doubled).start
        errors[doubled] = float((found - exact.start).abs().max() / exact.start.abs().max())
    assert errors[True] < 0.05
    assert errors[False] > 5 * errors[True]


def tensors_alive(n: int) -> int:
    """How many tensors are alive near the end of an adjoint with states found again, seen from the denoiser."""
    process, calls, seen = VariancePreserving(), [], []
    path = flow(process, n)
    times, end = path.times, path.end
    del path

    def belief(x, t):
        calls.append(t)
        if len(calls) == 3 * n:
            seen.append(sum(isinstance(o, torch.Tensor) for o in gc.get_objects()))
        return LAW.denoiser(process).denoise(x, t)

    adjoint_from_end(belief, process, times, end, end - GOAL)
    return seen[0]


def test_memory_does_not_grow_with_the_steps():
    gc.collect()
    few, many = tensors_alive(5), tensors_alive(20)
    assert many <= few + 2


def test_cycle_encoding_returns_the_sample(g4):
    """The program run again with the encoded draws ends at the sample; with fresh ones it does not. The draws of a long program are
    nearly standard normal.
    """
    process = VariancePreserving()
    program, x = Ancestral(1.0).compile(process, times_of(process, 100)), g4.sample(40, 0)
    belief = g4.denoiser(process).denoise
    code = cycle_encode(program, belief, x, 1)
    assert torch.allclose(run(program, belief, code.start, code), x, atol=1e-10)
    assert float((run(program, belief, code.start, noise(9, 40, (2,), dtype=torch.float64)) - x).abs().max()) > 0.5
    spread = torch.stack(list(code.noises.values())).std()
    assert float(spread) == pytest.approx(1.0, abs=0.05)


def test_bad_input_is_refused(g4):
    process = VariancePreserving()
    path, belief = flow(process, 4), LAW.denoiser(process).denoise
    with pytest.raises(ShapeError, match="the shape of the end"):
        adjoint(belief, path, path.end[:2])
    with pytest.raises((ArgumentError, TypeCheckError), match="order"):
        adjoint(belief, path, path.end, order=3)
    with pytest.raises(ArgumentError, match="fall strictly"):
        adjoint(belief, Trajectory(process, (path.times[0], *path.times), (path.states[0], *path.states)), path.end)
    with pytest.raises(ArgumentError, match="that require gradients"):
        adjoint(belief, path, path.end, parameters=[GOAL])
    zero = Trajectory(process, (*path.times, 0.0), (*path.states, path.end))
    with pytest.raises(ArgumentError, match="finite log-SNR"):
        adjoint(belief, zero, path.end)
    with pytest.raises(ShapeError, match="a scalar"):
        program_gradient(ddim().compile(process, path.times), belief, path.states[0], lambda y: y)
    with pytest.raises(ArgumentError, match="adds its own draw"):
        cycle_encode(Ancestral(1.0).compile(process, (*path.times, 0.0)), belief, path.end)
    code = cycle_encode(Ancestral(1.0).compile(process, path.times), belief, path.end)
    with pytest.raises(ArgumentError, match="one of the draws"):
        code.draw(0)
