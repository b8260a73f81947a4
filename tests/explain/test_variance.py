"""The effective SDE: its simulators agree with one another, with closed forms and with the Fokker-Planck equation."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from sfumato.errors import ArgumentError
from sfumato.exact import Empirical, Gaussian, SpectralCovariance
from sfumato.exact.diffusions.fokker_planck import Line
from sfumato.explain.generalising.variance import AverageDenoiser, EffectiveSDE, ensemble, naive
from sfumato.learn.closed.features import GaussianBumps
from sfumato.learn.closed.linear_denoiser import fit_linear, sandwich
from sfumato.learn.closed.triples import Regression
from sfumato.learn.losses.weights import MinSNRWeight
from sfumato.noise import FlowMatching, VariancePreserving
from sfumato.sample import uniform_time

VP = VariancePreserving(0.2, 20.0)
POINTS = Empirical(torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float64))


def normal(std):
    return Gaussian(torch.zeros(1), SpectralCovariance.isotropic(1, std**2))


def test_without_noise_the_flow_of_a_gaussian_ends_at_its_blurred_law_at_first_order():
    """Euler on the exact flow: std -> sqrt(alpha^2 s^2 + sigma^2) at the last time, the error halves with the step."""
    law, end = normal(0.5), 0.02
    exact = law.flow(VP, 1.0, end)
    errors = []
    for n in (80, 160, 320):
        times = uniform_time(n, 1.0, end)
        x = ensemble([law.denoiser(VP)], (1,), (1.0, 1.0 - 1e-9), 50, 3)[0]
        y = ensemble([law.denoiser(VP)], (1,), times, 50, 3)[0]
        errors.append(float((y - exact(x)).abs().max()))
    for coarse, fine in pairwise(errors):
        assert 0.8 < math.log2(coarse / fine) < 1.2


def linear_variance(s, kappa, times):
    """The variance of Euler-Maruyama on `dx = (b + D s') x dtau + D sqrt(kappa C) dW`, step by step."""
    t = torch.tensor(times, dtype=torch.float64)
    alpha, noise, D, F = VP.alpha(t), VP.sigma(t) ** 2, VP.diffusion_squared(t) / 2, VP.drift(t)
    total = alpha**2 * s**2 + noise
    C = alpha**2 / noise**2 * (s**2 * noise / total)
    v, gaps = float(noise[0]), t[:-1] - t[1:]
    for gain, kick in zip((1 + gaps * (-F - D / total)[:-1]).tolist(), (gaps * (kappa * D**2 * C)[:-1]).tolist(), strict=True):
        v = v * gain**2 + kick
    return v


def test_noise_adds_the_variance_of_the_linear_equation():
    """One Gaussian: everything is linear, so the variance obeys a recursion; the SDE, the naive estimator and the grid agree with it."""
    law, kappa, n, end = normal(0.7), 0.3, 2000, 0.05
    times, fine = uniform_time(80, 1.0, end), uniform_time(20000, 1.0, end)
    still = float(VP.alpha(end)) ** 2 * 0.49 + float(VP.sigma(end)) ** 2
    assert linear_variance(0.7, 0.0, fine) == pytest.approx(still, rel=1e-3)
    assert linear_variance(0.7, kappa, fine) > 1.2 * still
    system, line = EffectiveSDE.naive(law, VP, kappa), Line(-6.0, 6.0, 600)
    assert system.density(uniform_time(200, 1.0, end), line).std ** 2 == pytest.approx(linear_variance(0.7, kappa, fine), rel=0.03)
    for x in (system.sample((1,), times, n, 1), naive(law, VP, times, n, kappa, 2)):
        assert float(x.var()) == pytest.approx(linear_variance(0.7, kappa, times), rel=4 * math.sqrt(2 / n))


def test_naive_estimator_of_points_follows_the_fokker_planck_equation():
    """Mass of |x| < 1/2 within 4 standard errors; the equation without the noise is more than 8 away (the negative control)."""
    times, n, kappa = uniform_time(200, 1.0, 0.02), 4000, 0.2
    x = naive(POINTS, VP, times, n, kappa, 1)[:, 0]
    system, line = EffectiveSDE.naive(POINTS, VP, kappa), Line(-6.0, 6.0, 800)
    mass, error = float((x.abs() < 0.5).double().mean()), math.sqrt(0.25 * 0.75 / n)
    assert abs(mass - system.density(times, line).mass(-0.5, 0.5)) < 4 * error
    assert abs(mass - system.without_noise().density(times, line).mass(-0.5, 0.5)) > 8 * error


def test_the_estimator_as_it_is_has_the_step_for_its_strength():
    times = uniform_time(50, 1.0, 0.1)
    a, b = naive(POINTS, VP, times, 20, None, 4), naive(POINTS, VP, times, 20, times[0] - times[1], 4)
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def test_random_functions_and_trained_models_have_one_averaged_law():
    """`ensemble` of 40 models against the models that their sandwich draws: the mean |x| of either within 4 standard errors over models."""
    problem = Regression(POINTS, VP, "proxy", MinSNRWeight(5.0), 0.02)
    features, count, times = GaussianBumps(1, 5), 1500, uniform_time(20, 1.0, 0.02)
    models = [fit_linear(features, problem, count, seed=10 + i) for i in range(40)]
    drawn = sandwich(features, problem, count, seed=1).draw(40, 2)
    mean, other = (ensemble(m, (1,), times, 200, 3).abs().mean((1, 2)) for m in (models, drawn))
    error = math.sqrt(float(mean.var() + other.var()) / 40)
    assert abs(float(mean.mean() - other.mean())) < 4 * error
    assert error < 0.05


def test_average_of_linear_denoisers_averages_their_weights():
    problem = Regression(POINTS, VP, t_min=0.02)
    models = [fit_linear(GaussianBumps(1, 4), problem, 50, seed=i) for i in range(3)]
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    weights = torch.stack([m.weights for m in models]).mean(0)
    expected = models[0].features(x, torch.full((9,), 0.4)) @ weights
    torch.testing.assert_close(AverageDenoiser(models).denoise(x, torch.tensor(0.4, dtype=torch.float64)), expected)


def test_bad_input():
    exact = POINTS.denoiser(VP)
    with pytest.raises(ArgumentError, match="model"):
        ensemble([], (1,), (1.0, 0.5), 3)
    with pytest.raises(ArgumentError, match="above 0"):
        ensemble([exact], (1,), (1.0, 0.0), 3)
    with pytest.raises(ArgumentError, match="kappa"):
        naive(POINTS, VP, (1.0, 0.5), 3, -0.1)
    with pytest.raises(ArgumentError, match="kappa"):
        EffectiveSDE.naive(POINTS, VP, -0.1)
    with pytest.raises(ArgumentError, match="standard deviations"):
        EffectiveSDE.naive(POINTS, VP, 0.1).density((1.0, 0.5), Line(-2.0, 2.0, 50))
    with pytest.raises(ArgumentError, match="process"):
        AverageDenoiser([exact, POINTS.denoiser(FlowMatching())])
