"""The coupling's objective: its terms against closed forms, and what a short training does to them."""

from __future__ import annotations

import pytest
import torch

from sfumato.denoise import Preconditioned, ResidualMLP
from sfumato.errors import ArgumentError
from sfumato.exact.laws.coupled_gaussian import CoupledGaussian
from sfumato.learn import FitSettings
from sfumato.learn.forward.learned_coupling import GaussianEncoder, coupling_costs, fit_coupling
from sfumato.noise import EDM, FlowMatching


def test_costs_of_an_untrained_pair_are_those_of_independence():
    """An untrained encoder is the prior: divergence 0. The untrained flow is the best linear one, so on Gaussian data its loss is `V`."""
    data = 0.5 * torch.randn(60_000, 1, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(60_000, 1, generator=torch.Generator().manual_seed(1))
    denoiser = Preconditioned(ResidualMLP((1,), 8, 1), FlowMatching(), 0.5)
    t = (torch.arange(60_000, dtype=torch.float64) + 0.5) / 60_000
    t = t[torch.randperm(60_000, generator=torch.Generator().manual_seed(2))]
    with torch.no_grad():
        costs = coupling_costs(denoiser, GaussianEncoder((1,)), data, t, noise)
    assert float(costs.divergence.abs().max()) == 0
    world = CoupledGaussian.of_correlation(0.5, 0.0)
    assert float(costs.matching.mean()) == pytest.approx(float(world.cost), rel=0.02)


def test_the_divergence_is_torchs():
    from torch.distributions import Normal, kl_divergence

    encoder = GaussianEncoder((3,), 8, 1)
    torch.nn.init.normal_(encoder.network.last.weight, generator=torch.Generator().manual_seed(0))
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
    mean, log_std = encoder(x)
    denoiser = Preconditioned(ResidualMLP((3,), 8, 1), FlowMatching(), 1.0)
    costs = coupling_costs(denoiser, encoder, x, torch.full((7,), 0.5, dtype=torch.float64), torch.zeros(7, 3))
    known = kl_divergence(Normal(mean, log_std.exp()), Normal(torch.zeros(3), torch.ones(3))).mean(1)
    torch.testing.assert_close(costs.divergence, known)
    assert torch.equal(encoder.encode(x, torch.zeros(7, 3)), mean)


def test_training_trades_divergence_for_a_lower_matching_cost():
    """On a small budget: the cost falls below that of independence, and a larger beta buys less."""
    data = 0.5 * torch.randn(2000, 1, generator=torch.Generator().manual_seed(0))
    settings, found = FitSettings(80, 64, 2e-2, warmup=0), []
    t = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    noise = torch.randn(2000, 1, generator=torch.Generator().manual_seed(1))
    for beta in (0.1, 10.0):
        denoiser, encoder = Preconditioned(ResidualMLP((1,), 16, 1), FlowMatching(), 0.5), GaussianEncoder((1,), 16, 1)
        losses = fit_coupling(denoiser, encoder, data, settings, beta)
        assert len(losses) == 80
        with torch.no_grad():
            costs = coupling_costs(denoiser, encoder, data, t, noise)
        found.append((float(costs.matching.mean()), float(costs.divergence.mean())))
    independent = float(CoupledGaussian.of_correlation(0.5, 0.0).cost)
    assert found[0][0] < 0.5 * independent < found[1][0]
    assert found[0][1] > 10 * found[1][1]


def test_bad_input():
    data = torch.zeros(4, 1)
    with pytest.raises(ArgumentError, match="beta"):
        fit_coupling(Preconditioned(ResidualMLP((1,), 8, 1), FlowMatching()), None, data, FitSettings(1), -1.0)
    with pytest.raises(ArgumentError, match="straight paths"):
        fit_coupling(Preconditioned(ResidualMLP((1,), 8, 1), EDM()), None, data, FitSettings(1))
