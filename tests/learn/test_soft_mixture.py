"""A soft mixture starts as one Gaussian, is bounded as theory says, and learns to choose only by the bound that keeps its latent."""

from __future__ import annotations

import pytest
import torch

from sfumato.denoise import FeatureMixture, SoftKernel
from sfumato.errors import ArgumentError, DataError, ShapeError
from sfumato.learn import FitSettings, fit_soft_mixture, soft_kernel_loss
from sfumato.noise import FlowMatching, VariancePreserving


def kernel(times=(1.0, 0.05)):
    return SoftKernel(FeatureMixture((1,), 16, 1, 2), FlowMatching(), times)


def test_the_mean_is_the_posterior_mean_given_the_answer_and_all_latents_agree_at_first():
    k, process = kernel((0.8, 0.3)), FlowMatching()
    x, eta = torch.linspace(-1, 1, 5)[:, None], torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    answer = k.network(x, k.label[0].expand(5), eta)
    step, s = process.transition(0.3, 0.8), float(process.sigma(0.3))
    precision = 1 / s**2 + float(step.phi**2 / step.covariance)  # Bayes, with x_s | x_0 ~ N(alpha_s D, s^2)
    expected = (float(process.alpha(0.3)) * answer / s**2 + float(step.phi / step.covariance) * x) / precision
    torch.testing.assert_close(k.mean(x, 0, eta), expected)
    torch.testing.assert_close(k.mean(x, 0, eta), k.mean(x, 0, -eta))


def test_more_latents_bound_tighter_and_the_mean_bounds_the_mixture():
    """-log mean exp falls with K in expectation, and is below the mean of -log for the same latents (Jensen)."""
    k = kernel()
    with torch.no_grad():
        k.network.bend.weight.normal_(generator=torch.Generator().manual_seed(1))
    x, y = torch.randn(2000, 1, generator=torch.Generator().manual_seed(2)), torch.ones(2000, 1)

    def loss(latents, bound="mixture"):
        return float(soft_kernel_loss(k, x, y, 0, torch.Generator().manual_seed(3), latents=latents, bound=bound).mean().detach())

    assert loss(32) < loss(8) < loss(1)
    assert loss(1) == pytest.approx(loss(1, "mean"), rel=1e-5)
    assert loss(8) < loss(8, "mean")


def test_two_points_are_told_apart_by_the_mixture_bound_and_averaged_by_the_mean():
    """Data at -1 and 1, one step from pure noise: spread of the means over latents near 1, and (control) near 0."""
    data = torch.tensor([[-1.0], [1.0]]).repeat(50, 1)
    spread = {}
    for bound in ("mixture", "mean"):
        k = kernel()
        fit_soft_mixture(k, data, FitSettings(250, 64, 1e-2, warmup=0), bound=bound)
        g = torch.Generator().manual_seed(4)
        with torch.no_grad():
            spread[bound] = float(k.mean(torch.zeros(500, 1), 0, torch.randn(500, 2, generator=g)).std())
            again = k.sample(torch.zeros(3, 1), torch.Generator().manual_seed(5))
        assert torch.equal(again, k.sample(torch.zeros(3, 1), torch.Generator().manual_seed(5)))
    assert spread["mixture"] > 0.6
    assert spread["mean"] < 0.05


def test_bad_input():
    with pytest.raises(ArgumentError, match="times"):
        kernel((0.1, 0.5))
    with pytest.raises(ArgumentError, match="latent"):
        FeatureMixture((1,), latent=0)
    k, x = kernel(), torch.zeros(2, 1)
    with pytest.raises(ShapeError, match="step"):
        k.mean(x, 1, torch.zeros(2, 2))
    with pytest.raises(ArgumentError, match="bound, latents"):
        soft_kernel_loss(k, x, x, 0, torch.Generator(), latents=0)
    with pytest.raises(DataError, match="finite"):
        fit_soft_mixture(k, x / 0, FitSettings(1))
    assert SoftKernel(FeatureMixture((1,)), VariancePreserving(), (1.0, 0.5)).times == (1.0, 0.5)
