"""What starting from the prior costs, against PyTorch's own divergence of dense Gaussians and against one dimension by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from sfumato.errors import ArgumentError
from sfumato.exact import Gaussian, SpectralCovariance, prior_gap
from sfumato.noise import Clock, ClockSDE, VariancePreserving, cld, linear, ouve

F64 = torch.float64


def law():
    root = torch.tensor([[1.2, 0.3], [-0.4, 0.7]], dtype=F64)
    return Gaussian(torch.tensor([0.8, -1.5], dtype=F64), SpectralCovariance.from_dense(root @ root.T))


def dense(process, condition=None):
    """Both laws as matrices, from the process's own operators."""
    data, end, prior = law(), process.marginal(1.0), process.prior()
    zero = torch.zeros(1, 2, dtype=F64)
    y = None if condition is None else condition[None]
    signal = end.phi.matrix((2,))
    shift = end.mean(zero, y).flatten()
    spread = signal @ data.covariance.dense() @ signal.T + end.covariance.matrix((2,))
    centre = torch.zeros(len(shift), dtype=F64) if condition is None else condition
    return MultivariateNormal(signal @ data.mean + shift, spread), MultivariateNormal(centre, prior.covariance.matrix((2,)))


def leaning():
    """A prior in which position and velocity know of each other, otherwise than at the end."""
    prior = torch.zeros(1, 2, 0, dtype=F64), torch.tensor([[[1.5, 0.6], [0.6, 0.8]]], dtype=F64)
    drift, noise = torch.tensor([[[-0.3, 1.0], [-1.0, -0.8]]], dtype=F64), torch.tensor([[[0.2, 0.1], [0.1, 0.9]]], dtype=F64)
    return ClockSDE(drift, noise, Clock(0.5, 1.0), prior=prior)


@pytest.mark.parametrize("process", [cld(), linear(VariancePreserving()), leaning()], ids=["phase space", "scalar", "correlated"])
def test_it_is_the_divergence_of_two_dense_gaussians(process):
    got = prior_gap(law(), process)
    torch.testing.assert_close(got, kl_divergence(*dense(process)), rtol=1e-9, atol=1e-12)
    assert float(got) > 0


def test_a_drift_towards_a_condition_shifts_both_ends():
    """The prior lies about the condition, which is not 0 and not the same in both coordinates."""
    process, y = ouve(), torch.tensor([0.4, -0.9], dtype=F64)
    torch.testing.assert_close(prior_gap(law(), process, y), kl_divergence(*dense(process, y)), rtol=1e-9, atol=1e-12)


def test_one_dimension_is_the_textbook_formula():
    process = linear(VariancePreserving(0.1, 4.0))
    alpha, sigma = (float(v) for v in VariancePreserving(0.1, 4.0).levels(1.0))
    one = Gaussian(torch.tensor([3.0], dtype=F64), SpectralCovariance.isotropic(1, 0.3))
    prior = float(VariancePreserving(0.1, 4.0).prior_std) ** 2
    variance = alpha**2 * 0.3 + sigma**2
    expected = ((variance + (3 * alpha) ** 2) / prior - 1 - math.log(variance / prior)) / 2
    assert float(prior_gap(one, process)) == pytest.approx(expected, rel=1e-10)
    assert expected > 0.1


def test_a_condition_that_is_missing_or_superfluous_is_named():
    with pytest.raises(ArgumentError, match="condition"):
        prior_gap(law(), ouve())
    with pytest.raises(ArgumentError, match="condition"):
        prior_gap(law(), cld(), torch.zeros(2, dtype=F64))
