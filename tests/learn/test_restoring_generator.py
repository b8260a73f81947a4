"""Restoring generators: each prior pulls a law onto another, and fidelity ties the restored to what was seen."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sfumato.denoise import ResidualMLP
from sfumato.errors import ArgumentError, ShapeError
from sfumato.learn import FitSettings
from sfumato.learn.students.restoring_generator import RestoringGenerator, fit_restoring_generator
from sfumato.learn.students.sample_priors import AdversarialPrior, KernelPrior, SlicedPrior
from sfumato.learn.training.descent import descend
from sfumato.metrics import sliced_wasserstein
from sfumato.noise.general.noisy_levels import NoisyLevels

LEVELS = NoisyLevels.diffusion((3, 0.5, -2))


def _moved(prior, scale_too):
    """The mean and standard deviation to which N(0, 1), or N(0, 1/4), is moved by a shift (and a scale) to match N(1, 1/4)."""
    layer = nn.Linear(1, 1)
    nn.init.constant_(layer.weight, 1.0 if scale_too else 0.5)
    nn.init.zeros_(layer.bias)
    layer.weight.requires_grad_(scale_too)

    def objective(generator):
        return prior(layer(torch.randn(128, 1, generator=generator)), 1 + 0.5 * torch.randn(128, 1, generator=generator), generator)

    descend(layer, objective, FitSettings(200, 128, 3e-2, warmup=0, ema_decay=0.9))
    return layer.bias.item(), abs(layer.weight.item())


@pytest.mark.parametrize("prior", [KernelPrior(), SlicedPrior(8)], ids=lambda p: type(p).__name__)
def test_a_prior_moves_a_gaussian_onto_another(prior):
    assert _moved(prior, scale_too=True) == pytest.approx((1, 0.5), abs=0.15)


def test_an_adversarial_prior_finds_a_shift():
    """Its scale is left alone: this divergence seeks modes, and finds them by turning around them."""
    prior = AdversarialPrior(nn.Sequential(nn.Linear(1, 16), nn.SiLU(), nn.Linear(16, 1)), 1e-2)
    assert _moved(prior, scale_too=False)[0] == pytest.approx(1, abs=0.3)


def test_the_sliced_prior_is_the_sliced_wasserstein_distance():
    """Averaged over many directions it is the metric of `metrics`, squared (an independent implementation)."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(200, 3, generator=generator), 1 + torch.randn(200, 3, generator=generator)
    mine = float(SlicedPrior(4000)(x, y, generator)) ** 0.5
    assert mine == pytest.approx(sliced_wasserstein(x, y).value, rel=0.05)


def _fitted(prior, fidelity, matches="clean", steps=150):
    data = torch.randint(0, 2, (1000, 1), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    generator = RestoringGenerator(ResidualMLP((2,), 24, 1), LEVELS, (1,))
    fit_restoring_generator(generator, data, FitSettings(steps, 64, 2e-2, warmup=0, ema_decay=0.9), prior, fidelity, matches=matches)
    return generator


def test_two_points_are_generated_with_a_prior_and_a_blur_of_them_without():
    """The posterior mean of +-1 from nearly nothing is near 0; a matched law has its mass at +-1."""
    source = torch.Generator().manual_seed(2)
    y, z = LEVELS.apply(torch.ones(400, 1), 2, torch.randn(400, 1, generator=source)), torch.randn(400, 1, generator=source)
    fitted = [_fitted(p, 0.05) for p in (None, KernelPrior())]
    with torch.no_grad():
        blur, matched = (generator(y, 2, z).abs().mean() for generator in fitted)
    assert float(blur) < 0.4
    assert float(matched) > 0.7
    start = torch.randn(400, 1, generator=source)
    stepwise, plain = _fitted(KernelPrior(), 0.05, "step", 300).sample(start, 1), fitted[0].sample(start, 1)
    assert float((stepwise.abs() - 1).abs().mean()) < 0.38 < float((plain.abs() - 1).abs().mean())


def test_samples_belong_to_their_seed_and_not_to_the_batch():
    generator = _fitted(None, 0.0, steps=1)
    start = torch.randn(6, 1, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(generator.sample(start, 7)[:2], generator.sample(start[:2], 7))
    assert not torch.equal(generator.sample(start, 7), generator.sample(start, 8))


def test_bad_input_is_refused(unchecked):
    with pytest.raises(ArgumentError, match="matches"):
        _fitted(None, 1.0, "noise", 1)
    with pytest.raises(ShapeError, match="flat events"):
        RestoringGenerator(ResidualMLP((1, 2)), LEVELS, (2,))
    with pytest.raises(ArgumentError, match="fidelity"):
        _fitted(KernelPrior(), -1)
    with pytest.raises(ArgumentError, match="directions"):
        SlicedPrior(0)
