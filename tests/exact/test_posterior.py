"""Posteriors of linear observations: against the joint Gaussian, quadrature and importance weights."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import Empirical, Gaussian, GaussianMixture, SpectralCovariance
from sfumato.exact.laws.conditioning import condition, noise_covariance
from sfumato.noise import VariancePreserving

F64 = torch.float64


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def cov(dim, rank=None, seed=0):
    a = random(dim, dim, seed=seed)
    return SpectralCovariance.from_dense(a @ a.T / dim + 0.1 * torch.eye(dim, dtype=F64), rank)


NOISES = {"std": 0.3, "none": 0.0, "covariance": torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=F64)}


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
@pytest.mark.parametrize("rank", [None, 3, 0])
def test_gaussian_posterior_is_the_conditional_of_the_joint_law(rank, noise):
    """Conditioning x on y in the dense joint covariance of (x, A x + e), by a generic inverse."""
    law, A, y = Gaussian(random(9), cov(9, rank)), random(2, 9, seed=1), random(2, seed=2)
    R = noise if isinstance(noise, torch.Tensor) else noise**2 * torch.eye(2, dtype=F64)
    dense = law.covariance.dense()
    joint = torch.cat([torch.cat([dense, dense @ A.T], 1), torch.cat([A @ dense, A @ dense @ A.T + R], 1)])
    gain = joint[:9, 9:] @ torch.linalg.inv(joint[9:, 9:])
    posterior = law.given(A, y, noise)
    torch.testing.assert_close(posterior.mean, law.mean + gain @ (y - A @ law.mean), rtol=0, atol=1e-12)
    torch.testing.assert_close(posterior.covariance.dense(), dense - gain @ joint[9:, :9], rtol=0, atol=1e-12)
    if rank is not None:
        assert posterior.covariance.rank <= rank + 2


def test_mixture_posterior_agrees_with_quadrature_in_the_plane():
    """p(x | y) = p(x) N(y; A x, R) / Z on a grid that is spectrally accurate for Gaussians."""
    law = GaussianMixture([0.3, 0.7], torch.tensor([[-1.0, 0.5], [1.5, 0.0]], dtype=F64), [cov(2, seed=s) for s in (3, 4)])
    A, y, std = torch.tensor([[1.0, 0.7]], dtype=F64), torch.tensor([0.4], dtype=F64), 0.5
    posterior = law.given(A, y, std)
    axis = torch.linspace(-16, 16, 641, dtype=F64)
    grid = torch.cartesian_prod(axis, axis)
    density = torch.exp(law.log_prob(grid) - 0.5 * ((y - grid @ A.T)[:, 0] / std) ** 2)
    density = density / density.sum() / (axis[1] - axis[0]) ** 2
    torch.testing.assert_close(posterior.log_prob(grid).exp(), density, rtol=0, atol=1e-11)


def test_mixture_posterior_agrees_with_importance_weights():
    """Self-normalised weights of 200,000 prior samples; the bound is 5 standard errors, per coordinate of the mean (fixed seed)."""
    law = GaussianMixture([1.0, 2.0], random(2, 3), [cov(3, 1, seed=1), cov(3, seed=2)])
    A, y, std = random(1, 3, seed=3), torch.tensor([0.5], dtype=F64), 0.8
    x = law.means[(torch.arange(200_000) % 3).clamp(max=1)]
    draws = random(200_000, 3, seed=9)
    for k, c in enumerate(law.covariances):
        rows = (torch.arange(200_000) % 3).clamp(max=1) == k
        x[rows] += c.sqrt_matmul(draws[rows])
    weights = torch.softmax(-0.5 * ((y - x @ A.T)[:, 0] / std) ** 2, 0)[:, None]
    mean = (weights * x).sum(0)
    error = (weights**2 * (x - mean) ** 2).sum(0).sqrt()
    assert bool(((law.given(A, y, std).mean - mean).abs() < 5 * error).all())


def test_observing_nothing_changes_nothing_and_two_observations_are_one():
    law = GaussianMixture([1.0, 2.0], random(2, 4), [cov(4, 1, seed=1), cov(4, seed=2)])
    A, y, x = random(3, 4, seed=3), random(3, seed=4), random(5, 4, seed=5)
    torch.testing.assert_close(law.given(torch.zeros(1, 4, dtype=F64), y[:1], 1.0).log_prob(x), law.log_prob(x), rtol=0, atol=1e-11)
    twice = law.given(A[:1], y[:1], 0.4).given(A[1:], y[1:], 0.4)
    torch.testing.assert_close(twice.log_prob(x), law.given(A, y, 0.4).log_prob(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("smoothed", [False, True])
def test_empirical_posterior_reweights_points(smoothed):
    """The posterior of a point set (and of its noisy version) is that of the mixture of narrow Gaussians it is the limit of."""
    points, A, y = random(30, 3), random(2, 3, seed=1), random(2, seed=2)
    process = VariancePreserving()
    law = Empirical(points, torch.rand(30, dtype=F64, generator=torch.Generator().manual_seed(0)))
    narrow = GaussianMixture(law.weights, points, [SpectralCovariance.isotropic(3, 1e-14)] * 30)
    if smoothed:
        law, narrow = law.through(process, 0.2), narrow.through(process, 0.2)
    torch.testing.assert_close(law.given(A, y, 0.5).mean, narrow.given(A, y, 0.5).mean, rtol=0, atol=1e-10)


def test_bad_observations_are_refused_by_name():
    law = Gaussian(random(3), SpectralCovariance.diagonal(torch.tensor([1.0, 1.0, 0.0], dtype=F64)))
    A, y = torch.eye(3, dtype=F64)[2:], torch.zeros(1, dtype=F64)
    with pytest.raises(ArgumentError, match="neither noise nor variance"):
        law.given(A, y, 0.0)
    with pytest.raises(ShapeError, match="A, y"):
        law.given(A, torch.zeros(2, dtype=F64), 1.0)
    with pytest.raises(ArgumentError, match="A, y"):
        law.given(A * torch.nan, y, 1.0)
    with pytest.raises(ArgumentError, match="noise"):
        law.given(A, y, -1.0)
    with pytest.raises(ShapeError, match="noise"):
        law.given(A, y, torch.eye(2, dtype=F64))
    with pytest.raises(ArgumentError, match="noise"):
        Empirical(random(5, 3)).given(A, y, 0.0)


@pytest.mark.parametrize("noise", [0.3, [[0.5, 0.2], [0.2, 0.3]]])
@pytest.mark.parametrize("rank", [None, 3, 0])
def test_the_evidence_is_the_density_of_the_observation(rank, noise):
    """`log N(y; A m, A C A^T + R)` by SciPy, whether the span is thin or all of the space."""
    mean, spread, A, y = random(9), cov(9, rank), random(2, 9, seed=1), random(2, seed=2)
    R = noise_covariance(torch.tensor(noise, dtype=F64), 2, mean.device)
    np.testing.assert_allclose(R.numpy(), noise if isinstance(noise, list) else 0.09 * np.eye(2), rtol=1e-13, atol=1e-15)
    expected = multivariate_normal((A @ mean).numpy(), (A @ spread.dense() @ A.T + R).numpy()).logpdf(y.numpy())
    assert float(condition(mean, spread, A, y, R)[2]) == pytest.approx(expected, rel=1e-12)
