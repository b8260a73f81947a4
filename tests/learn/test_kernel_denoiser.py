"""Kernel denoisers: limits of gradient flow, the answer to each target, and their scatter at fixed inputs."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.errors import ArgumentError
from sfumato.exact import Empirical
from sfumato.exact.draws import posterior_sample
from sfumato.exact.learning.proxy import posterior_variance
from sfumato.learn.closed.kernel_denoiser import KernelFit, SpaceTimeKernel
from sfumato.learn.closed.triples import Regression, Triples
from sfumato.noise import FlowMatching

PROCESS = FlowMatching()
LAW = Empirical(torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float64))


def triples(count=60, seed=1):
    return Regression(LAW, PROCESS, t_min=0.02).draw(count, seed)


def test_gradient_flow_is_gradient_descent_in_small_steps():
    """20,000 Euler steps of f' = -K (f - y) on the training inputs and a probe agree with the closed form to the step's first order."""
    data, kernel, probe, time = triples(12), SpaceTimeKernel(), triples(3, 5), 4.0
    K = kernel(data.noisy, data.t, data.noisy, data.t)
    k = kernel(probe.noisy, probe.t, data.noisy, data.t)
    inside, outside = torch.zeros(12, 1, dtype=torch.float64), torch.zeros(3, 1, dtype=torch.float64)
    for _ in range(20_000):
        error = (time / 20_000) * (data.target - inside)
        inside, outside = inside + K @ error, outside + k @ error
    fit = KernelFit(kernel, data, PROCESS, time=time)
    torch.testing.assert_close(fit.denoiser().denoise(probe.noisy, probe.t), outside, rtol=0, atol=1e-3)


def test_infinite_time_interpolates_and_ridge_is_the_normal_equations():
    data, kernel = triples(), SpaceTimeKernel()
    fit = KernelFit(kernel, data, PROCESS, time=math.inf)
    torch.testing.assert_close(fit.denoiser().denoise(data.noisy, data.t), data.target, rtol=0, atol=1e-9)
    ridged = KernelFit(kernel, data, PROCESS, ridge=0.3)
    K = kernel(data.noisy, data.t, data.noisy, data.t)
    solved = K @ torch.linalg.solve(K + 0.3 * torch.eye(60, dtype=torch.float64), data.target)
    torch.testing.assert_close(ridged.denoiser().denoise(data.noisy, data.t), solved)


@pytest.mark.parametrize("how", [{"ridge": 0.01}, {"time": 30.0}])
def test_targets_drawn_anew_scatter_as_predicted(how):
    """Inputs fixed, x_0 redrawn 4,000 times from its posterior: variance over prediction within 5 percent."""
    data, probe = triples(), triples(40, 7)
    fit = KernelFit(SpaceTimeKernel(), data, PROCESS, **how)
    generator = torch.Generator().manual_seed(3)
    drawn = torch.stack(
        [posterior_sample(LAW, x.expand(4000, 1), PROCESS, float(t), generator)[:, 0] for x, t in zip(data.noisy, data.t, strict=True)]
    )
    answers = fit.transfer(probe.noisy, probe.t) @ drawn
    assert float(answers.var(1).sum() / fit.spread(LAW).variance(probe.noisy, probe.t).sum()) == pytest.approx(1, abs=0.05)


def test_a_narrow_kernel_gives_the_naive_estimators_noise_at_its_inputs():
    data = triples()
    fit = KernelFit(SpaceTimeKernel(1e-4, 1e-4), data, PROCESS, time=math.inf)
    own = torch.stack([posterior_variance(LAW, x[None], PROCESS, float(t))[0] for x, t in zip(data.noisy, data.t, strict=True)])
    torch.testing.assert_close(fit.spread(LAW).variance(data.noisy, data.t)[:, 0], own, rtol=1e-6, atol=1e-9)


def test_draws_have_the_kernel_as_their_covariance():
    spread, probe, n = KernelFit(SpaceTimeKernel(), triples(), PROCESS, ridge=0.05).spread(LAW), triples(8, 7), 1500
    kernel = spread.kernel(probe.noisy, probe.t, probe.noisy, probe.t)[0]
    torch.testing.assert_close(kernel.diagonal(), spread.variance(probe.noisy, probe.t)[:, 0])
    answers = torch.stack([m.denoise(probe.noisy, probe.t)[:, 0] for m in spread.draw(n, 2)])
    std = kernel.diagonal().sqrt()
    assert float(((torch.cov(answers.T) - kernel) / (std[:, None] * std)).abs().max()) < 5 * math.sqrt(2 / n)


def test_training_forgets_the_initial_function_where_it_has_data():
    """With S_0 the training kernel and infinite time, the rest is the Gaussian-process posterior variance: 0 at inputs, S_0 far away."""
    data, kernel = triples(), SpaceTimeKernel()
    done = KernelFit(kernel, data, PROCESS, time=math.inf)
    assert float(done.initial_variance(kernel, data.noisy, data.t).abs().max()) < 1e-9
    assert float(done.initial_variance(kernel, torch.tensor([[40.0]], dtype=torch.float64), 0.5)) == pytest.approx(1)
    early = KernelFit(kernel, data, PROCESS, time=1e-6)
    torch.testing.assert_close(early.initial_variance(kernel, data.noisy, data.t), torch.ones(60, dtype=torch.float64), rtol=0, atol=1e-3)


def test_bad_input():
    data = triples(4)
    twice = Triples(data.noisy[[0, 0]], data.t[[0, 0]], data.target[[0, 0]], data.weight[[0, 0]])
    with pytest.raises(ArgumentError, match="one of the two"):
        KernelFit(SpaceTimeKernel(), data, PROCESS)
    with pytest.raises(ArgumentError, match="positive"):
        KernelFit(SpaceTimeKernel(), data, PROCESS, ridge=-1.0)
    with pytest.raises(ArgumentError, match="apart"):
        KernelFit(SpaceTimeKernel(), twice, PROCESS, time=math.inf)
    with pytest.raises(ArgumentError, match="length"):
        SpaceTimeKernel(length=0.0)
