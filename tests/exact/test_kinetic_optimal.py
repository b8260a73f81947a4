"""Kinetic energies against sampled velocities, the two solvable ends, and paths that nothing beats."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import Empirical, Gaussian, GaussianMixture, SpectralCovariance
from sfumato.exact.spectral.kinetic_optimal import FLOOR, Separation, data_separation, separation_of
from sfumato.noise import FlowMatching, Trigonometric
from sfumato.noise.scalars.polar_table import PolarTable

ANGLES = torch.linspace(0, math.pi / 2, 65, dtype=torch.float64)


def line(std=0.3):
    mean = math.sqrt(1 - std**2)
    means = torch.tensor([[-mean], [mean]], dtype=torch.float64)
    return GaussianMixture(None, means, [SpectralCovariance.isotropic(1, std**2)] * 2)


def test_isolated_points_have_straight_paths():
    """`lam = 1`: the polar metric is the plane's, the chord is `(1 - t, t)` and its energy 2."""
    separation = Separation(ANGLES, torch.ones(65, dtype=torch.float64))
    path, t = separation.optimal_path(), torch.linspace(0, 1, 33, dtype=torch.float64)
    for own, straight in zip(path.levels(t), FlowMatching().levels(t), strict=True):
        torch.testing.assert_close(own, straight, rtol=0, atol=1e-9)
    assert separation.optimal_energy == pytest.approx(2)
    assert separation.energy(path) == pytest.approx(2, abs=1e-5)


def test_a_standard_normal_is_carried_for_nothing():
    """`lam = 0`: any path on the unit circle costs nothing, and the floor leaves one of constant turning."""
    law = Gaussian(torch.zeros(3, dtype=torch.float64), SpectralCovariance.isotropic(3, 1.0))
    separation = separation_of(lambda a: math.cos(a) ** 2, 65)
    torch.testing.assert_close(separation.values, torch.zeros(65, dtype=torch.float64), rtol=0, atol=1e-12)
    assert separation.energy(Trigonometric()) == pytest.approx(0, abs=1e-12)
    path = separation.optimal_path()
    assert max(abs(r - 1) for r in path.radii) < FLOOR
    assert float(data_separation(law, 17, samples=4000).values[1:-4].max()) < 0.15  # the same law by sampling


def test_energy_is_that_of_the_sampled_velocity():
    """Within 4 standard errors, for a mixture and the best path of it."""
    law, n = line(), 20_000
    separation = data_separation(law, 33)
    for process in (FlowMatching(), separation.optimal_path()):
        t = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        eps = torch.randn(n, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        x0 = law.sample(n, 1)
        squares = law.denoiser(process).velocity(process.sample(x0, t, eps), t).square()
        assert float(squares.mean()) == pytest.approx(separation.energy(process), abs=4 * float(squares.std()) / math.sqrt(n))
    assert separation.optimal_energy <= separation.energy(process) < 1.05 * separation.optimal_energy
    assert separation.energy(process) < 0.6 * separation.energy(Trigonometric()) < 0.6 * separation.energy(FlowMatching())


def test_sampling_agrees_with_quadrature():
    points = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    sampled = data_separation(Empirical(points), 17, samples=20_000)
    exact = data_separation(line(0.0), 17)
    torch.testing.assert_close(sampled.values[3:], exact.values[3:], rtol=0, atol=0.03)


def test_a_polar_table_is_a_process():
    """Rates against differences, `F` and `g^2` against the rates, and the time of a ratio."""
    path = data_separation(line(), 33).optimal_path(64)
    t = torch.tensor([0.1234, 0.5011, 0.9123], dtype=torch.float64)
    h = 1e-6
    for value, rate in ((path.alpha, path.alpha_rate), (path.sigma, path.sigma_rate)):
        torch.testing.assert_close(rate(t), (value(t + h) - value(t - h)) / (2 * h), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(path.time(path.half_log_snr(t)), t)
    torch.testing.assert_close(path.time(torch.tensor([math.inf, -math.inf])), torch.tensor([0.0, 1.0], dtype=torch.float64))
    variance = path.sigma(t) ** 2
    grown = (path.sigma(t + h) ** 2 - path.sigma(t - h) ** 2) / (2 * h) - 2 * path.drift(t) * variance
    torch.testing.assert_close(path.diffusion_squared(t), grown, rtol=1e-5, atol=1e-7)
    assert float(path.alpha(1.0)) == 0 == float(path.sigma(0.0))
    assert float(path.alpha(0.0)) == pytest.approx(1) == float(path.sigma(1.0))


def test_bad_input():
    with pytest.raises(ArgumentError, match="mean square 1"):
        data_separation(GaussianMixture(None, torch.tensor([[-1.0], [2.0]]), [SpectralCovariance.isotropic(1, 0.1)] * 2))
    with pytest.raises(ShapeError, match="one value an angle"):
        Separation(ANGLES, torch.ones(3, dtype=torch.float64))
    with pytest.raises(ArgumentError, match=r"in \[0, 1\]"):
        Separation(ANGLES, 2 * torch.ones(65, dtype=torch.float64))
    with pytest.raises(ArgumentError, match="fall strictly"):
        PolarTable((1.0, 1.0), (0.0, math.pi / 2))
    with pytest.raises(ArgumentError, match="at least two"):
        PolarTable((1.0,), (0.0,))
