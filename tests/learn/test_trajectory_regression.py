"""Operators of the flow: convolutions are convolutions, teachers carry over, regression finds a known flow."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sfumato.denoise import ResidualMLP
from sfumato.denoise.networks.flow_operator import FlowOperator, TimeConvolution
from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.learn import FitSettings
from sfumato.learn.students.trajectory_regression import absolute, fit_operator, squared, trajectory_weights
from sfumato.noise import VariancePreserving
from sfumato.sample import reference, reference_times

PROCESS = VariancePreserving()
LAW = Gaussian(torch.zeros(2, dtype=torch.float64), SpectralCovariance.isotropic(2, 0.25))
NODES = reference_times(PROCESS, 8)


def trajectory(n=400):
    x = PROCESS.prior_sample(torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    return reference(LAW.denoiser(PROCESS).denoise, x, PROCESS, LAW, NODES)


def operator(sigma_data=0.5, modes=2, depth=1):
    network = ResidualMLP((2,), 8, depth, seed=0).double()
    return FlowOperator(network, PROCESS, NODES[0], [NODES[i] for i in (2, 4, 6, 8)], sigma_data, modes)


@pytest.mark.parametrize("times", [1, 4, 5])
def test_convolution_commutes_with_shifts_and_starts_as_nothing(times):
    generator = torch.Generator().manual_seed(1)
    layer, u = TimeConvolution(3, times // 2 + 1).double(), torch.randn(2, times, 3, generator=generator, dtype=torch.float64)
    assert torch.equal(layer(u), u)
    nn.init.normal_(layer.weight, generator=generator)
    torch.testing.assert_close(layer.convolve(u.roll(1, 1)), layer.convolve(u).roll(1, 1))
    assert layer(u).shape == u.shape


def test_a_single_mode_is_the_mean_over_time():
    layer = TimeConvolution(1, 1).double()
    nn.init.constant_(layer.weight, 1.0)
    u = torch.tensor([[[1.0], [2.0], [6.0]]], dtype=torch.float64)
    torch.testing.assert_close(layer.convolve(u), torch.full_like(u, 3.0))


def test_untrained_it_is_the_flow_of_the_isotropic_gaussian():
    path, made = trajectory(20), operator(0.5)
    for i, t in enumerate(made.times):
        torch.testing.assert_close(made(path.states[0])[:, i], LAW.flow(PROCESS, 1.0, t)(path.states[0]))


def test_a_teachers_weights_serve_every_time_alone():
    """Without mixing the answer at one time does not depend on which others are asked for."""
    made = operator()
    nn.init.normal_(made.network.last.weight, generator=torch.Generator().manual_seed(2))
    x = trajectory(5).states[0]
    alone = FlowOperator(made.network, PROCESS, 1.0, made.times[-1:], 0.5, 0)
    torch.testing.assert_close(made(x)[:, -1], alone(x)[:, 0])
    nn.init.constant_(made.mixing[0].weight, 0.3)
    assert float((made(x)[:, -1] - alone(x)[:, 0]).abs().max().detach()) > 0.01


def test_regression_finds_a_flow_from_a_wrong_skip():
    """With the skip of a wider Gaussian the flow has to be learned; held-out starts say whether it was. Shuffled pairs teach the mean."""
    path = trajectory()
    fit, held = path[:300], path[300:]

    def off(made):
        return float((made(held.states[0])[:, -1].detach() - held.end).square().mean().sqrt())

    before, made = off(operator(1.0)), operator(1.0)
    losses = fit_operator(made, fit, FitSettings(120, 64, 2e-2, warmup=0, ema_decay=0.95), weights=torch.ones(4))
    assert off(made) < 0.25 * before
    assert float(losses[-10:].mean()) < 0.3 * float(losses[:3].mean())


def test_weights_are_clamped_roots_of_the_snr():
    weights = trajectory_weights(operator())
    assert weights[-1] == 1e4  # no noise is left
    assert weights[0] == 1.0
    assert float(weights[2]) == pytest.approx(1 / float(PROCESS.ratio(NODES[6])))


def test_distances_by_hand():
    a, b = torch.zeros(2, 2), torch.tensor([[1.0, -3.0], [0.0, 0.0]])
    assert absolute(a, b).tolist() == [2.0, 0.0]
    assert squared(a, b).tolist() == [5.0, 0.0]


def test_refuses_nonsense():
    network = ResidualMLP((2,), 4, 1)
    with pytest.raises(ArgumentError, match="classes"):
        FlowOperator(ResidualMLP((2,), 4, 1, classes=2), PROCESS, 1.0, [0.0], 1.0)
    with pytest.raises(ArgumentError, match="modes"):
        FlowOperator(network, PROCESS, 1.0, [0.5, 0.0], 1.0, 3)
    with pytest.raises(ArgumentError, match="times"):
        FlowOperator(network, PROCESS, 0.5, [0.6], 1.0)
    with pytest.raises(ArgumentError, match="frequencies"):
        TimeConvolution(2, 3)(torch.zeros(1, 2, 2))
    made = FlowOperator(network, PROCESS, 1.0, [0.5], 1.0, 1)
    with pytest.raises(ArgumentError, match="trajectory"):
        fit_operator(made, trajectory(4), FitSettings(1))
    with pytest.raises(ShapeError, match="weights"):
        fit_operator(operator(), trajectory(4), FitSettings(1), weights=torch.ones(2))
