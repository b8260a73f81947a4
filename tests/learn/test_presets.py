"""The defaults start at the best linear denoiser of the digits and soon beat it, which wrong eigenvectors do not."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.data import Dataset
from sfumato.denoise import ConvNet, GaussianScalings, Isotropic, Preconditioned, ResidualMLP
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.learn import FitSettings, default_denoiser, default_loss, fit
from sfumato.noise import EDM, VariancePreserving


@pytest.fixture(scope="module")
def digits():
    pytest.importorskip("sklearn")
    from sfumato.data import digits

    return digits()


@torch.no_grad()
def error(denoiser, events, ratio):
    """Squared error of the denoised held-out events, summed over the pixels."""
    t = denoiser.process.time_of_ratio(ratio)
    noise = torch.randn(events.shape, generator=torch.Generator().manual_seed(5))
    return float((denoiser.denoise(denoiser.process.sample(events, t, noise), t) - events).square().flatten(1).sum(1).mean())


def test_default_denoiser_starts_at_the_linear_optimum(digits):
    """Measured elsewhere for the linear optimum on held-out digits, at ratios 0.2 and 0.5: 1.438 and 4.900."""
    assert [error(default_denoiser(digits), digits.test, k) for k in (0.2, 0.5)] == pytest.approx([1.438, 4.900], rel=0.02)


def test_gaussian_scalings_are_a_quarter_ahead_of_isotropic_ones_after_100_steps(digits):
    """The set-up and the pass mark of the design: two layers of 192, batch 128, rate 1e-3; 25 percent at ratio 0.2."""
    process, settings, loss = VariancePreserving(), FitSettings(100, 128, warmup=0, schedule="constant"), default_loss(digits)
    known, plain = (
        Preconditioned(ResidualMLP((1, 8, 8), 192, 2), process, scalings)
        for scalings in (default_denoiser(digits).scalings, loss.weight.sigma_data)
    )
    for denoiser in (known, plain):
        fit(denoiser, digits, settings)
    assert error(known, digits.test, 0.2) < 0.75 * error(plain, digits.test, 0.2)


def test_wrong_eigenvectors_start_worse_than_isotropic_scalings(digits):
    """Negative control: the same eigenvalues, on the eigenvectors in another order."""
    process = VariancePreserving()
    scalings = default_denoiser(digits).scalings
    law = scalings.law
    wrong = Gaussian(law.mean, SpectralCovariance(law.covariance.basis, law.covariance.eigenvalues.flip(0)), law.event_shape)
    iso = Gaussian(law.mean, SpectralCovariance.isotropic(64, float(law.covariance.trace()) / 64), law.event_shape)
    right, other, plain = (
        error(Preconditioned(ResidualMLP((1, 8, 8)), process, GaussianScalings(g)), digits.test, 0.5) for g in (law, wrong, iso)
    )
    assert right < 0.7 * plain
    assert other > 1.1 * plain


def test_defaults_know_the_scale_of_the_data_and_their_classes(digits):
    conditional = default_denoiser(digits, EDM(), conditional=True, seed=3)
    assert conditional.classes == 10
    assert conditional.process == EDM()
    loss = default_loss(digits)
    spread = math.sqrt(float(digits.train.double().var(0, correction=0).mean()))
    assert loss.weight.sigma_data == pytest.approx(spread, rel=1e-9)
    assert default_loss(10 * digits.train).times.mean == pytest.approx(math.log(10 * spread), rel=1e-6)


def test_larger_images_get_convolutions_with_isotropic_scalings():
    images = torch.randn(8, 3, 20, 20, generator=torch.Generator().manual_seed(0)) + 2
    denoiser = default_denoiser(Dataset("noise", images, images[:2]))
    assert isinstance(denoiser.network, ConvNet)
    assert denoiser.network.depth == 2
    assert isinstance(denoiser.scalings, Isotropic)
    assert denoiser.scalings.mean == pytest.approx(float(images.mean()), rel=1e-5)
