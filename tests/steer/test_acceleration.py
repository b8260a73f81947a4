"""Accelerations: views of the belief and back, samplers of their order, noise of the right law, strokes that steer."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.denoise import Network
from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import Gaussian, PushedDenoiser, SpectralCovariance, push
from sfumato.learn.losses.acceleration_loss import AcceleratedBelief, acceleration_loss
from sfumato.noise import agm, cld
from sfumato.sample.linear.acceleration import Acceleration, AccelerationFlow, AccelerationSplitting
from sfumato.sample.linear.linear_program import run_linear
from sfumato.sample.times.schedules import uniform_time
from sfumato.seeds import noise
from sfumato.steer import draw_velocity, follow_stroke, lean_velocity


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


PROCESS = agm()


def states(n, t, seed=0, event=(1,)):
    generator = torch.Generator().manual_seed(seed)
    return PROCESS.sample(
        torch.ones(n, *event, dtype=torch.float64), t, torch.randn(n, 2, *event, dtype=torch.float64, generator=generator)
    )


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_data_and_acceleration_are_views_of_each_other(eta):
    """Times that differ by sample; `a` is minus the reverse drift of the velocity, and the position's drift is the velocity."""
    view, t = Acceleration(PROCESS, eta), f64([0.2, 0.5, 0.9])
    m, data = states(3, t, event=(2,)), torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = view.of(data, m, t)
    assert torch.allclose(view.data(found, m, t), data, rtol=0, atol=1e-10)
    law = PROCESS.marginal(t)
    drift = PROCESS.drift(m, t, -law.covariance.solve(m - law.mean(data)), eta, data)
    assert torch.allclose(-drift[:, 1], found, rtol=0, atol=1e-9)
    assert torch.allclose(-drift[:, 0], m[:, 1], rtol=0, atol=1e-9)


def test_the_scale_is_the_deviation_given_the_data():
    """Of 20000 accelerations at one time, within 3 %."""
    for eta in (0.0, 1.0):
        view = Acceleration(PROCESS, eta)
        found = view.of(torch.ones(20_000, 1, dtype=torch.float64), states(20_000, 0.4), 0.4)
        assert float(found.std()) == pytest.approx(float(view.scale(0.4)), rel=0.03)


def belief(x, t):
    """`E[x_0 | x]` for `N(0.5, 0.3)`."""
    law = PROCESS.marginal(t)
    gain = (0.3 * law.phi.T) @ (0.3 * (law.phi @ law.phi.T) + law.covariance).inverse()
    half = torch.full((len(x), 1), 0.5, dtype=torch.float64)
    return half + gain.apply(x - law.mean(half))


def test_the_flow_converges_with_the_order_of_its_nodes():
    """Orders 1 and 2, from 10 and 20 steps against 80; a third node cannot mend what the first step, with one, leaves behind."""
    x = states(4, 0.9)

    def end(solver, steps):
        return run_linear(solver.compile(PROCESS, uniform_time(steps, 0.9, 0.3)), belief, x)

    known = end(AccelerationFlow(2), 80)
    for nodes in (1, 2):
        error = [float((end(AccelerationFlow(nodes), n) - known).norm()) for n in (10, 20)]
        assert abs(math.log2(error[0] / error[1]) - nodes) < 0.35


class Units:
    """Draws of a batch that holds nothing, the two numbers of the start, and the two of each draw, one at a time."""

    def draw(self, j):
        out = torch.zeros(3 + 2 * 40, 2, 1, dtype=torch.float64)
        out[[2 * j + 1, 2 * j + 2], [0, 1]] = 1
        return out


def test_the_split_sde_has_the_law_of_the_process():
    """Gaussian data: mean and covariance at t = 0.2, exactly, are those of the process to the first order of the step."""
    law = push(Gaussian(f64([0.5]), SpectralCovariance.isotropic(1, 0.3)), PROCESS, 0.2)

    def away(steps):
        program = AccelerationSplitting().compile(PROCESS, uniform_time(steps, 1.0, 0.2))
        x = run_linear(program, belief, PROCESS.prior_sample(Units().draw(0)), Units())[..., 0]
        gains = x[1:] - x[0]
        return torch.stack([(x[0] - law.means[0]).norm(), (gains.T @ gains - law.covariances[0].dense()).norm()])

    coarse, fine = away(10), away(20)
    assert bool((fine < 0.05).all())
    assert bool(((coarse / fine).log2() - 1).abs().max() < 0.15)


class Exact(Network):
    """The acceleration of the exact belief for `N(0.5, 0.3)` over its scale, times a factor."""

    kind = "exact"
    arguments = ()

    def __init__(self, view, factor):
        super().__init__((2, 1), None)
        self.view, self.factor = view, factor

    def forward(self, x, c_noise, condition=None):
        t, x = torch.exp(4 * c_noise.to(torch.float64)), x.to(torch.float64)
        said = self.view.of(belief(x, t), x, t) / self.view.scale(t)[:, None]
        return torch.stack([0 * said, self.factor * said], 1).to(torch.float32)


def test_the_loss_is_least_at_the_exact_belief_which_its_answer_stands_for():
    law, view = Gaussian(f64([0.5]), SpectralCovariance.isotropic(1, 0.3)), Acceleration(PROCESS)
    x0 = law.sample(3000, 1)
    loss = [float(acceleration_loss(Exact(view, f), view, x0, torch.Generator().manual_seed(0), first=0.05)) for f in (0.9, 1.0, 1.1)]
    assert loss[1] < min(loss[0], loss[2])
    m, learned = states(5, 0.5), AcceleratedBelief(Exact(view, 1.0), view)
    assert torch.allclose(learned.denoise(m, 0.5), PushedDenoiser(law, PROCESS).denoise(m, 0.5), rtol=0, atol=1e-4)


def test_velocities_drawn_for_a_stroke_have_the_processs_own_law():
    """If the stroke is the data, the state with a new velocity has the law it had: same covariance, whatever velocity it began with."""
    n, t = 20_000, 0.6
    stroke = torch.ones(n, 1, dtype=torch.float64)
    m = states(n, t)
    m[:, 1] = 7.0
    found = draw_velocity(PROCESS, m, stroke, t, torch.randn(n, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(3)))[..., 0]
    law = PROCESS.marginal(t)
    assert torch.allclose(found.T.cov(), law.covariance.coef[0], rtol=0, atol=0.05)
    assert torch.allclose(found.mean(0), law.phi.coef[0, :, 0], rtol=0, atol=0.03)
    leant = lean_velocity(m, stroke, 0.25)
    assert torch.equal(leant[:, 0], m[:, 0])
    assert torch.allclose(leant[:, 1], torch.full_like(stroke, 5.5))


def test_bad_input_is_refused():
    with pytest.raises(ArgumentError, match="steered"):
        Acceleration(cld())
    with pytest.raises(ArgumentError):
        AccelerationFlow(4)
    with pytest.raises(ArgumentError):
        lean_velocity(states(2, 0.5), torch.zeros(2, 1), 1.5)
    draws = noise(0, 2, (2, 1), dtype=torch.float64)
    with pytest.raises(ArgumentError, match="above 0"):
        follow_stroke(belief, PROCESS, (1.0, 0.0), draws, torch.zeros(2, 1))
    with pytest.raises(ShapeError, match="per stroke"):
        follow_stroke(belief, PROCESS, (1.0, 0.5), draws, torch.zeros(3, 1))
    with pytest.raises(ArgumentError):
        acceleration_loss(Exact(Acceleration(PROCESS), 1.0), Acceleration(PROCESS), torch.zeros(2, 1), torch.Generator(), first=0.0)
