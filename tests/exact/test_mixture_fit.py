"""Fitted mixtures: scikit-learn's quality on held-out digits, recovery of a known law, low rank, degenerate data."""

import itertools

import pytest
import torch

from sfumato.errors import ArgumentError, DataError
from sfumato.exact import GaussianMixture, SpectralCovariance, fit_gaussian, fit_mixture
from sfumato.exact.fitting.kmeans import k_means
from sfumato.exact.fitting.stream import Stream

F64 = torch.float64


@pytest.fixture(scope="module")
def digits():
    datasets = pytest.importorskip("sklearn.datasets")
    return torch.tensor(datasets.load_digits().data) / 16


def test_held_out_likelihood_of_digits_is_scikit_learns(digits):
    """Same model and the same variance added: the mean over three seeds, in nats per digit, is not below scikit-learn's by more than 1.
    One Gaussian, the control, is far below both."""
    from sklearn.mixture import GaussianMixture as Theirs

    train, test = digits[::2], digits[1::2]
    added = 1e-2 * float(train.var(0, unbiased=False).mean())
    ours = [float(fit_mixture(train, 10, floor=1e-2, seed=s).log_prob(test).mean()) for s in range(3)]
    theirs = [Theirs(10, reg_covar=added, random_state=s).fit(train.numpy()).score(test.numpy()) for s in range(3)]
    assert sum(ours) / 3 > sum(theirs) / 3 - 1
    assert float(fit_gaussian(train, floor=1e-2).log_prob(test).mean()) < sum(ours) / 3 - 5


def test_a_fit_is_deterministic_and_its_likelihood_rises_with_iterations(digits):
    digits = digits[::3]
    first, again = fit_mixture(digits, 10, seed=1), fit_mixture(digits, 10, seed=1)
    assert torch.equal(first.means, again.means)
    assert len(first) == 10
    likelihoods = [float(fit_mixture(digits, 10, seed=1, iterations=n, tolerance=0.0).log_prob(digits).mean()) for n in (1, 3, 10)]
    # to rounding: the last two are one maximum
    assert all(b >= a * (1 - 1e-14) for a, b in itertools.pairwise(likelihoods))
    split = fit_mixture(list(digits.split(250)), 10, seed=1)
    torch.testing.assert_close(split.log_prob(digits).mean(), first.log_prob(digits).mean(), rtol=0, atol=1e-6)


def test_a_known_mixture_is_found_again():
    """Three separated components, 6,000 samples: means within 5 standard errors, weights too (a false alarm once in 10,000 seeds)."""
    means = torch.tensor([[0.0, 0.0], [6.0, 0.0], [0.0, 8.0]], dtype=F64)
    truth = GaussianMixture([1.0, 2.0, 3.0], means, [SpectralCovariance.diagonal(torch.tensor([1.0, 0.3], dtype=F64))] * 3)
    x = truth.sample(6000, 0)
    law = fit_mixture(x, 3, floor=0.0)
    order = torch.cdist(means, law.means).argmin(1)
    counts = 6000 * truth.weights
    assert sorted(order.tolist()) == [0, 1, 2]
    assert bool(((law.means[order] - means).abs() < 5 / counts[:, None].sqrt()).all())
    assert bool(((law.weights[order] - truth.weights).abs() < 5 * (truth.weights * (1 - truth.weights) / 6000).sqrt()).all())
    assert abs(float(law.log_prob(x).mean() - truth.log_prob(x).mean())) < 0.01


def test_sketched_low_rank_components_agree_with_dense_ones(digits, monkeypatch):
    """The fit for many dimensions, forced on the digits, reaches the likelihood of the dense low-rank fit, and far more than rank 0."""
    dense = fit_mixture(digits, 6, rank=8)
    monkeypatch.setattr("sfumato.exact.fitting.mixture_fit.DENSE", 10)
    sketched = fit_mixture(list(digits.split(600)), 6, rank=8)
    assert {c.rank for c in sketched.covariances} == {8}
    values = [float(law.log_prob(digits).mean()) for law in (dense, sketched, fit_mixture(digits, 6, rank=0))]
    assert abs(values[0] - values[1]) < 0.3
    assert values[1] > values[2] + 5


def test_k_means_does_not_leave_a_centre_empty():
    """Two far clusters and a centre count of 3: every centre ends with samples, and a lone outlier is a centre of its own."""
    g = torch.Generator().manual_seed(0)
    x = torch.cat([torch.randn(50, 2, dtype=F64, generator=g), torch.tensor([[100.0, 100.0]], dtype=F64)])
    centres = k_means(Stream(x), 3, seed=0)
    assert len(torch.cdist(x, centres).argmin(1).unique()) == 3
    assert float(torch.cdist(x[-1:], centres).min()) == 0.0


def test_data_that_cannot_be_used_are_refused_by_name(digits):
    with pytest.raises(DataError, match="at most 2, the number of distinct"):
        fit_mixture(digits[:2].repeat(5, 1), 3)
    with pytest.raises(DataError, match="constant"):
        fit_mixture(torch.ones(5, 3), 1)
    with pytest.raises(ArgumentError, match="rank"):
        fit_mixture(digits, 2, rank=64)
    with pytest.raises(ArgumentError, match="rank"):
        fit_mixture(torch.randn(4, 1100, generator=torch.Generator().manual_seed(0)), 2)
    with pytest.raises(ArgumentError, match="floor"):
        fit_mixture(digits, 2, floor=-1.0)
    with pytest.raises(ArgumentError, match="without variance"):
        fit_mixture(digits, 2, floor=0.0)
