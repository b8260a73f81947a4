"""Coupled Gaussians against closed forms, sampling and autograd."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.errors import ArgumentError
from sfumato.exact.laws.coupled_gaussian import CoupledGaussian


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.95])
def test_costs_of_a_coupling_whose_aggregate_is_the_prior(rho):
    world = CoupledGaussian.of_correlation(0.5, rho)
    assert float(world.cost) == pytest.approx(0.5 * math.sqrt(1 - rho**2) * math.acos(rho), abs=1e-9)
    assert float(world.divergence) == pytest.approx(-0.5 * math.log(1 - rho**2), abs=1e-12)
    assert world.euler_variance(400) == pytest.approx(0.25, rel=0.02)  # the flow takes the prior to the data


def test_the_cost_is_the_least_flow_matching_loss():
    """By least squares on samples, a slope at each of a few times: 1 percent."""
    world, generator = CoupledGaussian(0.7, torch.tensor(0.6).double(), torch.tensor(0.8).double()), torch.Generator().manual_seed(0)
    x, n = (torch.randn(200_000, generator=generator, dtype=torch.float64) for _ in range(2))
    x = 0.7 * x
    z, losses = 0.6 * x + 0.8 * n, []
    for t in torch.linspace(0.025, 0.975, 20).tolist():
        noisy = (1 - t) * x + t * z
        gain = float(noisy @ (z - x) / (noisy @ noisy))
        assert gain == pytest.approx(world.velocity_gain(t), abs=0.01)
        losses.append(float((z - x - gain * noisy).square().mean()))
    assert sum(losses) / 20 == pytest.approx(float(world.cost), rel=0.01)


def test_costs_are_differentiable_and_bad_input():
    slope, spread = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.6, 0.8))
    assert torch.autograd.gradcheck(lambda a, b: CoupledGaussian(0.7, a, b).cost + CoupledGaussian(0.7, a, b).divergence, (slope, spread))
    with pytest.raises(ArgumentError, match="correlation"):
        CoupledGaussian.of_correlation(1.0, 1.0)
    with pytest.raises(ArgumentError, match="positive"):
        CoupledGaussian(0.0, slope, spread)
