"""Samplers under any member of the linear SDE family: one loop over the registry, against exact laws and the flow itself."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from sfumato.errors import ArgumentError, RecipeError
from sfumato.exact import Gaussian, GaussianMixture, PushedDenoiser, SpectralCovariance, push
from sfumato.metrics import energy_distance
from sfumato.noise import LINEAR_SDES, Operator, VariancePreserving, brownian_bridge, cld, function_space, ir_sde, linear
from sfumato.sample import (
    Ancestral,
    LinearAncestral,
    LinearDDIM,
    LinearEuler,
    LinearProgram,
    LinearRow,
    ddim,
    output_law,
    run,
    run_linear,
    uniform_time,
)
from sfumato.seeds import noise

MEMBERS = {**LINEAR_SDES, "variance_preserving": lambda: linear(VariancePreserving())}
IMAGES = ("blurred_cld", "blurring", "heat", "pixel_times", "flexible_spectrum")


def event_of(name):
    return {"flexible": (2,), "function_space": (4,)}.get(name, (2, 2) if name in IMAGES else (1,))


def condition_of(process, event):
    return torch.full(event, 0.3, dtype=torch.float64) if process.marginal(0.5).shift is not None else None


def normal(shape, seed):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", MEMBERS)
def test_every_member_is_sampled(name):
    """Data at a point: one step of generalised DDIM is three of them, down to t = 0. Gaussian data: the exact error of the law that the
    ancestral sampler puts out falls in proportion to the step.
    """
    process, event = MEMBERS[name](), event_of(name)
    y, point = condition_of(process, event), normal((1, *event), 1)
    rows = None if y is None else y[None]
    x = normal(process.state_shape(point.expand(3, *event)), 2)
    once, thrice = (LinearDDIM().compile(process, times) for times in ((0.9, 0.0), (0.9, 0.6, 0.3, 0.0)))
    a, b = (run_linear(p, lambda z, t: point.expand(len(z), *event), x, None, rows) for p in (once, thrice))
    assert torch.allclose(a, b, rtol=0, atol=1e-12 * float(1 + a.abs().max()))
    # heat dissipation has noise at t = 0, too
    if name != "heat":
        assert torch.allclose(a if process.channels == 1 else a[:, 0], point.expand(3, *event), rtol=0, atol=1e-9)
    law = Gaussian(normal((math.prod(event),), 3), SpectralCovariance.isotropic(math.prod(event), 0.3), event)
    target = push(law, process, 0.2, y)
    exact = target.covariances[0].dense()
    errors = []
    for steps in (12, 24):
        mean, spread = output_law(LinearAncestral().compile(process, uniform_time(steps, 0.9, 0.2)), law, y)
        errors.append(float((spread - exact).norm() / exact.norm() + (mean - target.means[0]).norm()))
    # the third order's slow first steps leave it below 1 at 12 steps
    assert (0.4 if process.channels == 3 else 0.75) < math.log2(errors[0] / errors[1]) < 1.15
    assert errors[1] < 0.5


@pytest.mark.parametrize("name", ["cld", "flexible", "agm", "ir_sde"])
def test_one_step_of_ddim_follows_the_flow_of_a_point(name):
    """Against 40 Runge-Kutta steps of order 4 along the velocity, which knows nothing of flow factors."""
    process, event = MEMBERS[name](), event_of(name)
    y, point = condition_of(process, event), normal((1, *event), 1)
    x = normal(process.state_shape(point), 2)
    known = point if name == "agm" else None if y is None else y[None]

    def rate(z, t):
        law = process.marginal(t)
        away = z - law.mean(point, None if y is None else y[None])
        return process.drift(z, t, -law.covariance.solve(away), condition=known)

    z = x
    for t, s in itertools.pairwise(torch.linspace(0.9, 0.4, 41, dtype=torch.float64).tolist()):
        h = s - t
        a = rate(z, t)
        b = rate(z + h / 2 * a, t + h / 2)
        c = rate(z + h / 2 * b, t + h / 2)
        z = z + h / 6 * (a + 2 * b + 2 * c + rate(z + h * c, s))
    program = LinearDDIM().compile(process, (0.9, 0.4))
    assert torch.allclose(run_linear(program, lambda v, t: point, x, None, None if y is None else y[None]), z, rtol=0, atol=1e-4)


def test_the_multistep_form_has_the_order_of_its_nodes(g4):
    """Under trace-class noise, on a curved flow: against 64 steps of itself."""
    process = function_space((2,))
    belief, x = PushedDenoiser(g4, process), push(g4, process, 0.6).sample(4, 0)
    ends = [run_linear(LinearDDIM(2).compile(process, uniform_time(n, 0.6, 0.3)), belief.denoise, x) for n in (8, 16, 64)]
    errors = [float((end - ends[-1]).abs().max()) for end in ends[:2]]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.35)


STRUCTURES = {"cld": 64, "function_space": 24, "flexible": 24, "ir_sde": 24, "brownian_bridge": 24}


@pytest.mark.parametrize(("name", "steps"), STRUCTURES.items())
def test_the_prior_is_carried_back_to_the_data(name, steps):
    """The ancestral sampler from t = 1 to 0 with a mixture's exact belief: an energy distance within 3 standard errors of 0; the data's
    Gaussian of the same mean and covariance is not.
    """
    process, event, n = MEMBERS[name](), event_of(name), 400
    d = math.prod(event)
    means = torch.stack([torch.full((d,), m, dtype=torch.float64) for m in (-1.0, 0.8)])
    law = GaussianMixture([0.4, 0.6], means, [SpectralCovariance.isotropic(d, 0.03)] * 2, event)
    y = condition_of(process, event)
    shape = process.state_shape(torch.zeros(n, *event))[1:]
    draws, rows = noise(4, n, shape, dtype=torch.float64), None if y is None else y[None].expand(n, *event)
    # all that is noise has left the end of a bridge, and no law there has a density
    first = 0.98 if name == "brownian_bridge" else 1.0
    start = push(law, process, first, y).sample(n, 7) if first < 1 else process.prior_sample(draws.draw(0), rows)
    times = uniform_time(steps, first, 0.0, 2.0)
    out = run_linear(LinearAncestral().compile(process, times), PushedDenoiser(law, process, y).denoise, start, draws, rows)
    data = out if process.channels == 1 else out[:, 0]
    truth = law.sample(n, 5)
    blurred = truth.flatten(1).mean(0) + normal((n, d), 6) @ torch.linalg.cholesky(truth.flatten(1).T.cov().reshape(d, d)).T
    same, control = energy_distance(data, truth), energy_distance(blurred.reshape(n, *event), truth)
    assert same.value < 3 * same.standard_error
    assert control.value > 3 * control.standard_error


def test_under_a_scalar_process_they_are_the_scalar_samplers(g4):
    """DDIM and the ancestral sampler of the scalar path, with the same draws; Euler's flow by hand."""
    process, times = VariancePreserving(), (0.9, 0.6, 0.3, 0.1)
    x, draws, belief = normal((5, 2), 0), noise(3, 5, (2,), dtype=torch.float64), g4.denoiser(process)
    for ours, theirs in ((LinearDDIM(), ddim()), (LinearAncestral(), Ancestral(1.0))):
        a = run_linear(ours.compile(linear(process), times), belief.denoise, x, draws)
        assert torch.allclose(a, run(theirs.compile(process, times), belief.denoise, x, draws), rtol=0, atol=1e-12)
    step = run_linear(LinearEuler().compile(linear(process), (0.9, 0.6)), belief.denoise, x)
    assert torch.allclose(step, x - 0.3 * belief.velocity(x, 0.9), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda x: run_linear(LinearAncestral().compile(cld(), (0.9, 0.1)), lambda z, t: z[:, 0], x), ArgumentError, "draws"),
        (lambda x: run_linear(LinearDDIM().compile(ir_sde(), (0.9, 0.1)), lambda z, t: z, x), ArgumentError, "condition"),
        (lambda x: run_linear(LinearDDIM().compile(cld(), (0.9, 0.1)), lambda z, t: z[:, 0], x, None, x), ArgumentError, "condition"),
        (lambda x: LinearDDIM().compile(brownian_bridge(), (1.0, 0.1)), ArgumentError, "inverse"),
        (lambda x: LinearDDIM(7), ArgumentError, "1 to 4"),
        (lambda x: LinearEuler(-1.0), ArgumentError, "eta"),
        (lambda x: LinearProgram("x", cld(), (0.5, 0.6), (LinearRow(), LinearRow())), RecipeError, "never rise"),
        (lambda x: LinearProgram("x", cld(), (0.5, 0.4), (LinearRow(), LinearRow({1: cld().coefs(0.5).phi}))), RecipeError, "earlier"),
    ],
)
def test_what_cannot_be_run_is_named(wrong, error, message):
    with pytest.raises(error, match=message):
        wrong(normal((3, 2, 1), 0))


def test_a_row_is_the_sum_of_its_parts():
    """By hand, with a condition that one row reads and the others do not, and a last row of which nothing is left."""
    process, one = ir_sde(), torch.ones(1, 1, 1, dtype=torch.float64)
    rows = (
        LinearRow(),
        LinearRow({0: Operator(2 * one)}, {0: Operator(-one)}, {}, Operator(3 * one)),
        LinearRow({1: Operator(0.5 * one), 0: Operator(one)}, {1: Operator(4 * one)}, {2: Operator(5 * one)}),
    )
    x, y = normal((4, 2), 0), normal((4, 2), 1)
    draws = noise(2, 4, (2,), dtype=torch.float64)
    first = 2 * x - torch.tanh(x) + 3 * y
    second = first / 2 + x + 4 * torch.tanh(first) + 5 * draws.draw(2)

    def belief(z, t):
        return torch.tanh(z)

    for n, expected in ((2, first), (3, second)):
        program = LinearProgram("by hand", process, (0.9, 0.5, 0.2)[:n], rows[:n])
        torch.testing.assert_close(run_linear(program, belief, x, draws, y), expected, rtol=1e-14, atol=1e-14)
    nothing = LinearProgram("nothing", process, (0.9, 0.5), (LinearRow(), LinearRow()))
    assert torch.equal(run_linear(nothing, belief, x), torch.zeros_like(x))


def test_the_name_says_through_how_many_nodes():
    assert [LinearDDIM(n).name for n in (1, 2, 4)] == ["generalised-ddim", "generalised-ddim-2", "generalised-ddim-4"]
