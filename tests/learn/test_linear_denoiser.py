"""Linear denoisers: features are their formulas, the fit is the ridge solution, and their scatter is the sandwich's."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import integrate

from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import Empirical, Gaussian, SpectralCovariance
from sfumato.learn.closed.features import Fourier, GaussianBumps, RandomFourier
from sfumato.learn.closed.linear_denoiser import fit_linear, sandwich
from sfumato.learn.closed.triples import Regression
from sfumato.learn.losses.weights import MinSNRWeight, Uniform
from sfumato.noise import FlowMatching

PROCESS = FlowMatching()
POINTS = torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float64)


def problem(target="proxy"):
    return Regression(Empirical(POINTS), PROCESS, target, MinSNRWeight(5.0), 0.02)


def at(n, dim):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, dim, generator=generator, dtype=torch.float64), torch.rand(n, generator=generator, dtype=torch.float64)


def test_bumps_are_normalised_densities_half_a_spacing_wide_and_multiply_over_variables():
    bumps, (x, t) = GaussianBumps(2, 4), at(5, 2)
    one = GaussianBumps(1, 4)
    ends = one(torch.tensor([[-1.5], [-1.0], [-0.5]], dtype=torch.float64), torch.zeros(3))[:, 0]
    # spacing 1, standard deviation 1/2: one and two deviations away from the first centre
    torch.testing.assert_close(ends / ends[0], torch.exp(torch.tensor([0.0, -0.5, -2.0], dtype=torch.float64)))
    total, _ = integrate.quad(lambda u: float(one._one(torch.tensor([u]), -1.5, 1.5)[0, 2]), -10, 10, points=[0.5])
    assert total == pytest.approx(1, abs=1e-7)
    parts = [bumps._one(x[:, i], -1.5, 1.5) for i in (0, 1)]
    product = torch.einsum("nt,ni,nj->ntij", bumps._one(t, 0.0, 1.0), *parts).flatten(1)
    torch.testing.assert_close(bumps(x, t), product)
    assert bumps.size == product.shape[1] == 64


def test_fourier_features_are_orthogonal_over_their_range_and_split_as_said():
    fourier = Fourier(1, 6)
    u = torch.arange(300, dtype=torch.float64) / 100 - 1.5
    values = fourier._one(u, -1.5, 1.5)
    gram = values.T @ values / 300
    torch.testing.assert_close(gram, torch.diag(torch.tensor([1.0, 0.5, 0.5, 0.5, 0.5, 0.5], dtype=torch.float64)), atol=1e-12, rtol=0)
    mirrored = fourier._one(-u, -1.5, 1.5)
    assert ((mirrored + values).abs().amax(0) < 1e-9).tolist() == [False, False, False, False, True, True]
    assert ((mirrored - values).abs().amax(0) < 1e-9).tolist() == [True, True, True, True, False, False]


def test_random_features_average_to_the_gaussian_kernel():
    """phi.phi / count = exp(-|x-x'|^2/2l^2 - (t-t')^2/2l_t^2) + O(1/sqrt(count))."""
    (x, t), features = at(20, 3), RandomFourier(3, 40_000, 1.2, 0.4)
    phi = features(x, t)
    kernel = torch.exp(-0.5 * (torch.cdist(x, x) / 1.2) ** 2 - 0.5 * ((t[:, None] - t) / 0.4) ** 2)
    assert float((phi @ phi.T / 40_000 - kernel).abs().max()) < 5 * math.sqrt(1.5 / 40_000)


def test_fit_is_the_minimiser_of_the_ridged_loss():
    """The gradient of mean l |y - W phi|^2 / 2 + rho |W|^2 / 2, by autograd, vanishes at the fit and not elsewhere."""
    features, count, ridge = GaussianBumps(1, 5), 300, 0.05
    fitted, triples = fit_linear(features, problem(), count, ridge=ridge, seed=3), problem().draw(count, 3)

    def gradient(weights):
        w = weights.clone().requires_grad_()
        error = triples.target - features(triples.noisy, triples.t) @ w
        loss = (triples.weight[:, None] * error**2).sum() / count / 2 + ridge * (w**2).sum() / 2
        return float(torch.autograd.grad(loss, w)[0].abs().max())

    assert gradient(fitted.weights) < 1e-12
    assert gradient(0.9 * fitted.weights) > 1e-3


def test_both_targets_have_one_population_solution_and_their_scatters_differ_by_the_targets_noise():
    """Law of total variance: B_proxy = B_clean + E[l^2 Cov(x_0|x) phi phi^T], so the proxy's variance is the larger one everywhere."""
    features, probe = GaussianBumps(1, 4), problem().draw(50, 9)
    noisy, clean = (sandwich(features, problem(target), 500, ridge=0.05, population=15_000, seed=1) for target in ("proxy", "clean"))
    torch.testing.assert_close(noisy.mean.weights, clean.mean.weights, rtol=0, atol=0.08)
    assert bool((noisy.variance(probe.noisy, probe.t) > clean.variance(probe.noisy, probe.t)).all())


@pytest.mark.parametrize("target", ["proxy", "clean"])
def test_ensembles_scatter_as_the_sandwich_says(target):
    """80 models on 1,000 triples each, 16 features: the mean variance within 15 percent, and where it is large and small."""
    features, probe, count = GaussianBumps(1, 4), problem().draw(60, 9), 1000
    models = [fit_linear(features, problem(target), count, ridge=0.05, seed=100 + i) for i in range(80)]
    measured = torch.stack([m.denoise(probe.noisy, probe.t) for m in models]).var(0)
    predicted = sandwich(features, problem(target), count, ridge=0.05, population=8000, seed=1).variance(probe.noisy, probe.t)
    assert float(measured.sum() / predicted.sum()) == pytest.approx(1, abs=0.15)
    assert float(torch.corrcoef(torch.stack([measured[:, 0].log(), predicted[:, 0].log()]))[0, 1]) > 0.95


def test_draws_have_the_kernel_as_their_covariance_and_the_kernel_the_variance_as_its_diagonal():
    features = GaussianBumps(1, 4)
    spread = sandwich(features, problem(), 300, ridge=0.05, population=5000, seed=1)
    x, y = torch.linspace(-1, 1, 7, dtype=torch.float64)[:, None], torch.linspace(-0.5, 1.5, 7, dtype=torch.float64)[:, None]
    torch.testing.assert_close(spread.kernel(x, 0.3, x, 0.3)[0].diagonal(), spread.variance(x, 0.3)[:, 0])
    models = spread.draw(1500, 5)
    a, b = (torch.stack([m.denoise(z, t)[:, 0] for m in models]) for z, t in ((x, 0.3), (y, 0.6)))
    cross = (a - a.mean(0)).T @ (b - b.mean(0)) / len(a)
    scale = spread.variance(x, 0.3).sqrt() * spread.variance(y, 0.6)[:, 0].sqrt()
    assert float(((cross - spread.kernel(x, 0.3, y, 0.6)[0]) / scale).abs().max()) < 5 / math.sqrt(1500) * 1.4


def test_both_targets_are_drawn_alike_and_times_are_uniform():
    law = Gaussian(torch.zeros(2), SpectralCovariance.isotropic(2, 0.5))
    flat = Regression(law, PROCESS, "proxy", Uniform(), 0.1).draw(4000, 0)
    assert 0.1 < float(flat.t.min()) < 0.11
    assert float(flat.t.mean()) == pytest.approx(0.55, abs=5 * 0.26 / math.sqrt(4000))
    clean = Regression(law, PROCESS, "clean", Uniform(), 0.1).draw(4000, 0)
    torch.testing.assert_close(clean.noisy, flat.noisy)
    torch.testing.assert_close(clean.target, law.posterior_mean(flat.noisy, PROCESS, flat.t))


def test_bad_input():
    with pytest.raises(ArgumentError, match="t_min"):
        Regression(Empirical(POINTS), PROCESS, t_min=0.0)
    with pytest.raises(ArgumentError, match="products"):
        GaussianBumps(5, 10)
    with pytest.raises(ArgumentError, match="ridge"):
        fit_linear(GaussianBumps(1, 4), problem(), 10, ridge=0.0)
    with pytest.raises(ShapeError, match="features"):
        fit_linear(GaussianBumps(2, 4), problem(), 10)
    with pytest.raises(ArgumentError, match="condition"):
        fit_linear(GaussianBumps(1, 4), problem(), 10).denoise(POINTS, 0.5, torch.zeros(3))
