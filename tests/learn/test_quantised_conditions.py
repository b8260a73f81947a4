"""Quantised conditions: the quantiser and its gradient, histograms and priors that draw what was counted, and what codes are learnt for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sfumato.denoise import ResidualMLP
from sfumato.errors import ArgumentError, ShapeError
from sfumato.learn import FitSettings
from sfumato.learn.forward.quantised_conditions import (
    AutoregressiveCodes,
    CodedVelocity,
    CodeHistogram,
    Codes,
    code_numbers,
    fit_coded,
    fit_codes_prior,
)


def test_quantised_numbers_are_the_nearest_levels_cell_by_cell():
    u = torch.tensor([[-0.99], [-0.4], [-0.2], [0.2], [0.4], [0.99]])
    codes = [Codes(nn.Identity(), levels)(torch.atanh(u))[:, 0].tolist() for levels in (2, 3)]
    assert codes[0] == pytest.approx([-1, -1, -1, 1, 1, 1])
    assert codes[1] == pytest.approx([-1, -1, 0, 0, 1, 1])
    both = torch.tensor([[-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    assert code_numbers(both).tolist() == [1, 2, 3]


def test_gradients_pass_straight_through_the_quantiser():
    x = torch.tensor([[0.3], [-0.8]], requires_grad=True)
    Codes(nn.Identity())(x).sum().backward()
    torch.testing.assert_close(x.grad, 1 - torch.tanh(x.detach()) ** 2)


def test_a_histogram_draws_codes_as_often_as_they_occur():
    """20,000 draws: five standard deviations of a share of 0.7 are 0.016."""
    codes = torch.tensor([[1.0, 1.0]] * 7 + [[-1.0, 1.0]] * 3)
    histogram = CodeHistogram(codes)
    drawn = histogram.draw(20_000, torch.Generator().manual_seed(0))
    assert len(histogram) == 2
    assert float((drawn[:, 0] == 1).float().mean()) == pytest.approx(0.7, abs=0.017)
    assert bool((drawn[:, 1] == 1).all())


def test_an_autoregressive_prior_learns_a_parity():
    """The third bit is the product of the first two, so the entropy is 2 ln 2; of independent bits it would be 3 ln 2."""
    first = torch.randint(0, 2, (512, 2), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    codes = torch.cat([first, first.prod(1, keepdim=True)], 1)
    prior = AutoregressiveCodes(3, 16)
    losses = fit_codes_prior(prior, codes, FitSettings(150, 128, 3e-2, warmup=0))
    assert float(losses[-20:].mean()) == pytest.approx(2 * 0.6931, abs=0.05)
    drawn = prior.draw(500, torch.Generator().manual_seed(1))
    assert float((drawn.prod(1) == 1).float().mean()) > 0.95
    every = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)
    assert float(prior.log_prob(every).detach().exp().sum()) == pytest.approx(1, abs=1e-5)


def _trained(encoder, steps=150, **kwargs):
    """Two clusters at +-2 on the line; one bit."""
    data = (torch.randint(0, 2, (1000, 1), generator=torch.Generator().manual_seed(0)) * 4.0 - 2) + 0.1
    velocity = CodedVelocity(ResidualMLP((2,), 24, 1), Codes(encoder))
    losses = fit_coded(velocity, data, FitSettings(steps, 64, 1e-2, warmup=0, ema_decay=0.9), **kwargs)
    return velocity, data, float(losses[-40:].mean())


def _linear(frozen=False):
    layer = nn.Linear(1, 1)
    nn.init.constant_(layer.weight, 0.02)
    nn.init.constant_(layer.bias, -0.1)  # at first one code for all
    return layer.requires_grad_(not frozen)


def test_one_bit_tells_two_clusters_apart_and_straightens_their_flows():
    """The encoder starts with one code for all; the loss teaches it. With the gradient stopped it stays so, and the loss stays high."""
    velocity, data, loss = _trained(_linear())
    _, _, blind = _trained(_linear(frozen=True))
    with torch.no_grad():
        codes = velocity.codes(data)
    assert abs(float((codes * torch.sign(data)).mean())) > 0.99
    assert loss < 0.5 * blind
    histogram, generator = CodeHistogram(codes), torch.Generator().manual_seed(2)
    drawn = histogram.draw(300, generator)
    out = velocity.sample(torch.randn(300, 1, generator=generator), drawn, 2)
    assert float((out.abs() - 2).abs().mean()) < 0.3


def test_the_encoder_rests_when_told():
    layer = _linear()
    before = layer.weight.item()
    _trained(layer, 3, freeze_after=0)
    assert layer.weight.item() != before  # a freeze before the first step never comes
    layer = _linear()
    _trained(layer, 1)
    after_one = layer.weight.item()
    layer = _linear()
    _trained(layer, 6, freeze_after=1)
    assert layer.weight.requires_grad
    assert abs(layer.weight.item() - after_one) < 1e-6 or layer.weight.item() != before


def test_bad_input_is_refused():
    with pytest.raises(ArgumentError, match="levels"):
        Codes(nn.Identity(), 1)
    with pytest.raises(ArgumentError, match="dropout"):
        _trained(_linear(), 1, dropout=1.5)
    with pytest.raises(ShapeError, match="flat events"):
        CodedVelocity(ResidualMLP((1, 2)), Codes(nn.Identity()))
    with pytest.raises(ShapeError, match="bits"):
        fit_codes_prior(AutoregressiveCodes(2), torch.zeros(3, 2), FitSettings(1))
