"""Restorers: the ridge solution is the minimum of its objective, the network's is the conditional median."""

from __future__ import annotations

import pytest
import torch

from sfumato.denoise import ResidualMLP
from sfumato.errors import ArgumentError, ShapeError
from sfumato.learn import FitSettings, NetworkRestorer, RidgeRestorer, fit_restorer
from sfumato.noise import Blur, GaussianMask
from sfumato.seeds import noise

X = noise(0, 200, (1, 4, 4), dtype=torch.float64).draw(0)


def test_a_ridge_restorer_inverts_what_is_invertible_and_says_the_mean_of_what_is_lost():
    blur = RidgeRestorer(Blur((0, 0.2)), X, ridge=1e-12)
    torch.testing.assert_close(blur(Blur((0, 0.2))(X, 1), 1), X, atol=1e-5, rtol=0)
    gone = RidgeRestorer(GaussianMask((0, float("inf"))), X, ridge=1e-12)
    torch.testing.assert_close(gone(torch.zeros_like(X), 1), X.mean(0).expand_as(X), atol=1e-9, rtol=0)


def test_a_ridge_restorer_has_no_better_affine_neighbour():
    """The gradient of mean square error plus ridge vanishes (autograd)."""
    degrade = Blur((0, 1.0))
    restorer = RidgeRestorer(degrade, X, ridge=0.3)
    weights = restorer._maps[0].clone().requires_grad_()
    seen = torch.cat([degrade(X, 1).flatten(1), torch.ones(200, 1, dtype=torch.float64)], 1)
    ((seen @ weights - X.flatten(1)).square().sum() / 200 + 0.3 * weights.square().sum()).backward()
    assert float(weights.grad.abs().max()) < 1e-12


def test_a_network_restorer_learns_the_median_of_what_is_lost():
    """Of a law of mass 0.7 at 0 and 0.3 at 1 the median is 0, the mean 0.3."""
    data = (torch.rand(1000, 1, 2, 2, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    gone = GaussianMask((0, float("inf")), fill=0.5)
    restorer = NetworkRestorer(ResidualMLP((1, 2, 2), 16, 1), gone)
    losses = fit_restorer(restorer, data, FitSettings(100, 64, 1e-2, warmup=10))
    with torch.no_grad():
        said = restorer(gone(data[:1], 1), 1)
    assert float(said.abs().max()) < 0.05
    assert float(losses[-30:].mean()) == pytest.approx(0.3, abs=0.04)


def test_bad_input_is_refused():
    with pytest.raises(ArgumentError, match="ridge"):
        RidgeRestorer(Blur((0, 1)), X, 0)
    with pytest.raises(ShapeError):
        RidgeRestorer(Blur((0, 1)), X)(X[:, :, :2], 1)
