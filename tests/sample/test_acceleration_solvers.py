"""Accelerations: views of the belief and back, samplers of their order, noise of the right law."""

from __future__ import annotations

import math

import pytest
import torch

from accelerations import PROCESS, belief, f64, states
from sfumato.errors import ArgumentError
from sfumato.exact import Gaussian, SpectralCovariance, push
from sfumato.noise import cld
from sfumato.sample.linear.acceleration import Acceleration, AccelerationFlow, AccelerationSplitting
from sfumato.sample.linear.linear_program import run_linear
from sfumato.sample.times.schedules import uniform_time


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


def test_bad_input_is_refused():
    for eta in (0.0, 1.0):
        Acceleration(PROCESS, eta)
    for wrong in (lambda: Acceleration(cld()), lambda: Acceleration(PROCESS, -0.1), lambda: Acceleration(PROCESS, 1.1)):
        with pytest.raises(ArgumentError, match="steered process"):
            wrong()
    for nodes in (1, 3):
        assert AccelerationFlow(nodes).name == f"acceleration-flow-{nodes}"
    for nodes in (0, 4):
        with pytest.raises(ArgumentError, match="1 to 3"):
            AccelerationFlow(nodes)
