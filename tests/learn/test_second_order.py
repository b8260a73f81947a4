"""The second-order term: an identity of every law, the published forms of it, and what its gradient wants."""

from __future__ import annotations

import pytest
import torch

from sfumato.denoise import Preconditioned, ResidualMLP
from sfumato.errors import ArgumentError
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.learn import FitSettings, Uniform, UniformTime, fit
from sfumato.learn.losses.loss import DenoisingLoss
from sfumato.learn.losses.second_order import ProbedExamples, SecondOrderLoss
from sfumato.noise import FlowMatching, VariancePreserving


def examples(law, process, n, loss, t=0.3):
    clean = law.sample(n, 0)
    made = loss.examples(process, clean, torch.Generator().manual_seed(0))
    times = torch.full((n,), t, dtype=torch.float64)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return ProbedExamples(clean, process.sample(clean, times, noise), times, torch.ones(n), None, probe=made.probe)


def residual(belief, process, batch):
    x = batch.noisy.requires_grad_()
    said = belief.denoise(x, batch.t)
    (pulled,) = torch.autograd.grad(said, x, batch.probe)
    alpha, sigma = process.levels(float(batch.t[0]))
    return ((pulled * batch.probe).sum(1) - float(alpha / sigma**2) * (batch.clean - said).detach().square().sum(1)), said.detach()


@pytest.mark.parametrize("process", [VariancePreserving(), FlowMatching()], ids=lambda p: p.kind)
def test_the_residual_has_mean_zero_for_the_exact_denoiser_only(g4, process):
    """Within 4 standard errors; the denoiser of a narrow Gaussian is more than 10 away."""
    batch = examples(g4, process, 20_000, SecondOrderLoss())
    found, _ = residual(g4.denoiser(process), process, batch)
    assert abs(float(found.mean())) < 4 * float(found.std()) / 20_000**0.5
    narrow = Gaussian(torch.zeros(2, dtype=torch.float64), SpectralCovariance.isotropic(2, 0.3))
    wrong, _ = residual(narrow.denoiser(process), process, batch)
    assert abs(float(wrong.mean())) > 10 * float(wrong.std()) / 20_000**0.5


@pytest.mark.parametrize("process", [VariancePreserving(), FlowMatching()], ids=lambda p: p.kind)
def test_the_published_forms(g4, process):
    """Variance preserving: `sigma v^T dF v - alpha (d - |F - F_hat|^2)`; straight paths: `sigma v^T dF v - d/sqrt 2 +
    sqrt 2 alpha |F - F_hat|^2` with `F = (eps - x_0)/sqrt 2`."""
    batch = examples(g4, process, 50, SecondOrderLoss())
    belief = g4.gaussian().denoiser(process)
    own, said = residual(belief, process, batch)
    alpha, sigma = (float(v) for v in process.levels(0.3))
    straight = process.kind == "flow-matching"

    def view(data, x):
        eps = (x - alpha * data) / sigma
        return (eps - data) / 2**0.5 if straight else alpha * eps - sigma * data

    x = batch.noisy.detach().requires_grad_()
    (pulled,) = torch.autograd.grad(view(belief.denoise(x, batch.t), x), x, batch.probe)
    error = (view(batch.clean, batch.noisy) - view(said, batch.noisy)).square().sum(1)
    trace = sigma * (pulled * batch.probe).sum(1)
    published = trace - 2 / 2**0.5 + 2**0.5 * alpha * error if straight else trace - alpha * (2 - error)
    torch.testing.assert_close(published, -own / 2**0.5 if straight else -own)


def test_the_loss_is_the_sum_of_both_parts_and_trains(g4):
    process = VariancePreserving()
    loss = SecondOrderLoss(weight=Uniform(), times=UniformTime(), view="v", second=0.3)
    plain = DenoisingLoss(Uniform(), UniformTime(), "v")
    batch = examples(g4, process, 40, loss)
    belief = g4.gaussian().denoiser(process)
    own, _ = residual(belief, process, batch)
    torch.testing.assert_close(
        loss(belief.denoise, process, batch), plain(belief.denoise, process, batch) + 0.3 * (own / 2) ** 2, check_dtype=False
    )
    parts = batch.split(4)
    assert torch.equal(parts[1].probe, batch[10:20].probe)
    network = Preconditioned(ResidualMLP((2,), 16, 1), process, 1.0)
    settings = FitSettings(3, 16, warmup=0)
    fit(network, g4.sample(64, 0).float(), settings, loss)
    other = Preconditioned(ResidualMLP((2,), 16, 1), process, 1.0)
    fit(other, g4.sample(64, 0).float(), settings, plain)
    assert not torch.equal(network.network.last.weight, other.network.last.weight)  # the second derivative reaches the weights


def test_bad_input(g4):
    with pytest.raises(ArgumentError, match="second"):
        SecondOrderLoss(second=0.0)
    process = VariancePreserving()
    plain = DenoisingLoss().examples(process, g4.sample(4, 0), torch.Generator().manual_seed(0))
    with pytest.raises(ArgumentError, match="which have probes"):
        SecondOrderLoss()(g4.denoiser(process).denoise, process, plain)
