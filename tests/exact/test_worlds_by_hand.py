"""Worlds of one or two dimensions, of unequal weights and means, against quadrature and sums: couplings, kernels, separations, rings."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import multivariate_normal, norm

from sfumato.errors import ArgumentError
from sfumato.exact import (
    CoupledGaussian,
    Empirical,
    Gaussian,
    GaussianMixture,
    Ring,
    Separation,
    SpectralCovariance,
    data_separation,
    gaussian_gap,
    gaussian_gap_1d,
    guided_flow,
    reverse_kernel,
    separation_of,
)
from sfumato.exact.laws import ring
from sfumato.exact.spectral.kinetic_optimal import FLOOR
from sfumato.noise import EDM, FlowMatching, Trigonometric, VariancePreserving
from sfumato.seeds import noise

F64 = torch.float64


def generator(seed):
    return torch.Generator().manual_seed(seed)


def test_a_coupling_whose_aggregate_is_not_the_prior_by_quadrature():
    s, a, b = 0.7, 0.6, 0.5
    world = CoupledGaussian(s, torch.tensor(a, dtype=F64), torch.tensor(b, dtype=F64))

    def moments(t):
        joint = np.array([[s**2, a * s**2], [a * s**2, a**2 * s**2 + b**2]])
        state, way = np.array([1 - t, t]), np.array([-1.0, 1.0])
        return state @ joint @ state, way @ joint @ state, way @ joint @ way

    def missed(t):
        variance, cross, difference = moments(t)
        return difference - cross**2 / variance

    assert float(world.cost) == pytest.approx(quad(missed, 0, 1, epsabs=1e-13)[0], rel=1e-11)
    assert float(world.aggregate_variance) == pytest.approx(a**2 * s**2 + b**2, rel=1e-14)
    assert float(world.divergence) == pytest.approx((a**2 * s**2 + b**2 - 1) / 2 - math.log(b), rel=1e-13)
    for t in (0.0, 0.3, 1.0):
        variance, cross, _ = moments(t)
        assert world.velocity_gain(t) == pytest.approx(cross / variance, rel=1e-13)
    gain = 1.0
    for t in (1.0, 2 / 3, 1 / 3):
        variance, cross, _ = moments(t)
        gain *= 1 - cross / variance / 3
    assert world.euler_variance(3) == pytest.approx(gain**2, rel=1e-13)
    of = CoupledGaussian.of_correlation(0.7, 0.6)
    assert (float(of.slope), float(of.spread)) == pytest.approx((0.6 / 0.7, 0.8), rel=1e-14)


PAIR = GaussianMixture(
    [0.3, 0.7],
    torch.tensor([[1.0, -0.5], [-2.0, 1.5]], dtype=F64),
    [SpectralCovariance.from_dense(torch.tensor(c, dtype=F64)) for c in ([[0.8, 0.3], [0.3, 0.4]], [[0.2, -0.1], [-0.1, 0.9]])],
)


def test_a_kernels_density_moments_and_draws():
    """Several states at once, leading axes too, against SciPy; 4,000 draws of one state within 4.5 standard errors."""
    process, x = VariancePreserving(), torch.tensor([[0.3, -0.7], [1.5, 1.0], [-1.0, 0.2]], dtype=F64)
    kernel = reverse_kernel(PAIR, process, x, 0.5, 0.2)
    at = torch.randn(4, 3, 2, dtype=F64, generator=generator(0))
    for i in range(3):
        parts = list(zip(kernel.shares[i], kernel.means[i], kernel.covariances, strict=True))
        density = sum(float(r) * multivariate_normal(m.numpy(), c.numpy()).pdf(at[:, i].numpy()) for r, m, c in parts)
        np.testing.assert_allclose(kernel.log_prob(at)[:, i].numpy(), np.log(density), atol=1e-11)
        mean = sum(r * m for r, m, _ in parts)
        second = sum(r * (c + torch.outer(m, m)) for r, m, c in parts) - torch.outer(mean, mean)
        torch.testing.assert_close(kernel.moments()[0][i], mean, rtol=0, atol=1e-13)
        torch.testing.assert_close(kernel.moments()[1][i], second, rtol=0, atol=1e-12)
        nearest = multivariate_normal(mean.numpy(), second.numpy()).logpdf(at[:, i].numpy())
        assert float(gaussian_gap(kernel, at)[i]) == pytest.approx(float((np.log(density) - nearest).mean()), abs=1e-11)
    many = reverse_kernel(PAIR, process, x[:1].expand(4000, 2), 0.5, 0.2).sample(generator(1))
    mean, covariance = (m[0] for m in kernel.moments())
    products = (many - mean)[:, :, None] * (many - mean)[:, None]
    for values, expected in ((many, mean), (products, covariance)):
        assert bool(((values.mean(0) - expected).abs() < 4.5 * values.std(0) / 4000**0.5).all())


def test_a_gap_in_one_dimension_is_the_integral_of_its_definition():
    law = GaussianMixture([0.3, 0.7], torch.tensor([[-1.0], [2.0]], dtype=F64), [SpectralCovariance.isotropic(1, v) for v in (0.05, 0.3)])
    kernel = reverse_kernel(law, VariancePreserving(), torch.tensor([[0.1], [0.8]], dtype=F64), 0.5, 0.2)
    gaps = gaussian_gap_1d(kernel)
    assert torch.equal(gaps, gaussian_gap_1d(kernel, 1001, 12))
    assert not torch.equal(gaps, gaussian_gap_1d(kernel, 1002, 12))
    assert not torch.equal(gaps, gaussian_gap_1d(kernel, 1001, 13))
    for i in range(2):
        parts = [
            (float(r), float(m), float(c) ** 0.5)
            for r, m, c in zip(kernel.shares[i], kernel.means[i, :, 0], kernel.covariances, strict=True)
        ]
        mean, covariance = (float(v[i]) for v in kernel.moments())

        def integrand(y, parts=parts, mean=mean, covariance=covariance):
            p = sum(r * norm.pdf(y, m, s) for r, m, s in parts)
            return p * (math.log(p) - norm.logpdf(y, mean, covariance**0.5)) if p > 0 else 0.0

        exact = quad(integrand, -6, 6, points=[m for _, m, _ in parts], epsabs=1e-12, limit=200)[0]
        assert float(gaps[i]) == pytest.approx(exact, abs=1e-8)
        assert exact > 1e-3
    coarse = 5.0 / 100 * 0.9
    narrow = GaussianMixture(None, torch.tensor([[-1.0], [1.0]], dtype=F64), [SpectralCovariance.isotropic(1, coarse**2 / 40)] * 2)
    with pytest.raises(ArgumentError, match="one per narrowest width"):
        gaussian_gap_1d(reverse_kernel(narrow, VariancePreserving(), torch.tensor([[0.1]], dtype=F64), 0.9, 0.0), 101)


ANGLES = torch.linspace(0, math.pi / 2, 5, dtype=F64)
VALUES = torch.tensor([0.0, 0.3, 0.9, 0.6, 1.0], dtype=F64)


def test_energies_and_flat_angles_are_sums_over_the_nodes():
    separation, step = Separation(ANGLES, VALUES), math.pi / 8
    roots = np.sqrt(VALUES.numpy())
    np.testing.assert_allclose(separation.flat_angles().numpy(), [0, *np.cumsum((roots[1:] + roots[:-1]) / 2 * step)], atol=1e-14)
    held = np.sqrt(VALUES.clamp(min=0.5).numpy())
    np.testing.assert_allclose(separation.flat_angles(0.5).numpy(), [0, *np.cumsum((held[1:] + held[:-1]) / 2 * step)], atol=1e-14)
    assert separation.optimal_energy == pytest.approx(2 - 2 * math.cos(float(separation.flat_angles()[-1])), rel=1e-14)
    assert float(separation.at(torch.tensor([0.3 * step], dtype=F64))) == pytest.approx(0.09, rel=1e-12)
    radii, angles = torch.tensor([1.0, 0.7, 1.2], dtype=F64), torch.tensor([1.5, 0.4, 0.1], dtype=F64)
    total = 0.0
    for i in range(2):
        r, angle = float(radii[i] + radii[i + 1]) / 2, float(angles[i] + angles[i + 1]) / 2
        lam = float(np.interp(angle, ANGLES.numpy(), VALUES.numpy()))
        total += 2 * (float(radii[i + 1] - radii[i]) ** 2 + lam * r**2 * float(angles[i + 1] - angles[i]) ** 2)
    assert separation.polar_energy(radii, angles) == pytest.approx(total, rel=1e-13)
    process = FlowMatching()
    t = torch.linspace(0, 1, 8, dtype=F64)
    polar = separation.polar_energy(torch.hypot(1 - t, t), torch.atan2(1 - t, t))
    assert separation.energy(process, 7) == pytest.approx(polar, rel=1e-12)
    assert separation.energy(process) == separation.energy(process, 4000) != separation.energy(process, 4001)


def test_the_best_path_is_a_chord_in_the_flat_metric():
    separation = Separation(ANGLES, VALUES)
    path = separation.optimal_path(6)
    assert (len(path.radii), len(separation.optimal_path().radii)) == (7, 1025)
    phi = separation.flat_angles(FLOOR).numpy()
    ends = np.array([[1.0, 0.0], [math.cos(phi[-1]), math.sin(phi[-1])]])
    for i in range(7):
        x, y = (i / 6) * ends[0] + (1 - i / 6) * ends[1]
        assert path.radii[i] == pytest.approx(math.hypot(x, y), rel=1e-12)
        assert path.angles[i] == pytest.approx(float(np.interp(math.atan2(y, x), phi, ANGLES.numpy())), abs=1e-12)
    assert FLOOR == 1e-3


def test_separations_of_an_error_and_of_laws():
    """From the definition at every inner angle; a mixture's error by sums on a line; another law's over its own samples."""
    got = separation_of(lambda a: 0.4 * math.cos(a) ** 2 * (1 + a / 5), 5)
    np.testing.assert_allclose(
        got.values.numpy(), [0, *(1 - 0.4 * (1 + a / 5) for a in ANGLES[1:4].tolist()), 1 - 0.4 * (1 + float(ANGLES[3]) / 5)]
    )
    torch.testing.assert_close(got.angles, ANGLES)
    assert separation_of(lambda a: 3.0, 3).values.tolist() == [0.0, 0.0, 0.0]
    assert len(separation_of(lambda a: 0.0).angles) == 257
    share, std = 0.3, 0.4
    far = math.sqrt((1 - std**2) * share * (1 - share))
    law = GaussianMixture(
        [share, 1 - share], torch.tensor([[-far / share], [far / (1 - share)]], dtype=F64), [SpectralCovariance.isotropic(1, std**2)] * 2
    )
    ours, process = data_separation(law, 5), Trigonometric()
    for i in (1, 2, 3):
        angle = float(ANGLES[i])
        sigma = math.cos(angle)
        grid = torch.linspace(-8, 8, 1601, dtype=F64)[:, None]
        t = 1 - 2 * angle / math.pi
        loss = law.through(process, t).log_prob(grid).exp() * law.posterior_covariance(grid, process, t)[:, 0, 0]
        error = float(loss.sum()) / 100
        assert float(ours.values[i]) == pytest.approx(1 - error / sigma**2, abs=1e-5)
    points = Empirical(torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=F64))
    usual = data_separation(points, 5)
    assert len(data_separation(points, samples=2).angles) == 257
    assert torch.equal(usual.values, data_separation(points, 5, samples=512, seed=0).values)
    clean, eps = points.sample(512, 0), noise(0, 512, (2,), dtype=F64).draw(2)
    for i in (1, 2, 3):
        alpha, sigma = math.sin(float(ANGLES[i])), math.cos(float(ANGLES[i]))
        seen = alpha * clean + sigma * eps
        found = torch.tanh(alpha * (seen[:, :1] - seen[:, 1:]) / sigma**2) * torch.tensor([1.0, -1.0], dtype=F64)
        error = float((clean - found).square().mean())
        assert float(usual.values[i]) == pytest.approx(min(max(1 - error / sigma**2, 0), 1), abs=1e-9)


def test_the_rings_series_is_that_of_its_bessel_functions(monkeypatch):
    """Coefficients by dividing the power series of `I_1(a)/a` by that of `I_0(a)`, in fractions; and where the series is used."""
    n = 6
    zero = [Fraction(1, 4**k * math.factorial(k) ** 2) for k in range(n)]
    one = [Fraction(1, 2 * 4**k * math.factorial(k) * math.factorial(k + 1)) for k in range(n)]
    quotient: list[Fraction] = []
    for k in range(n):
        quotient.append(one[k] - sum((quotient[j] * zero[k - j] for j in range(k)), Fraction(0)))
    assert tuple(float(q) for q in quotient) == ring._SERIES
    q = torch.tensor([1e-12, 0.01, 0.04], dtype=F64)
    exact = torch.special.i1e(q.sqrt()) / (q.sqrt() * torch.special.i0e(q.sqrt()))
    torch.testing.assert_close(ring._gain(q), exact, rtol=1e-14, atol=0)
    monkeypatch.setattr(ring, "_SMALL", 1.0)
    torch.testing.assert_close(ring._gain(q), exact, rtol=1e-13, atol=0)


def test_a_rings_samples_and_levels():
    """Angles and distances of the draws; a radius other than 1, a width, and times per sample."""
    law = Ring(3.0, 0.2)
    x = law.sample(200, 5)
    first = law.sample(200, 5, first=0)
    assert torch.equal(x, first)
    assert x.dtype == F64
    bare = Ring(3.0, 0.0).sample(200, 5)
    torch.testing.assert_close(bare.norm(dim=1), torch.full((200,), 3.0, dtype=F64))
    torch.testing.assert_close(x - bare, 0.2 * noise(5, 200, (2,), dtype=F64).draw(0), rtol=0, atol=1e-14)
    through = law.through(FlowMatching(), 0.25)
    assert (through.radius, through.width) == pytest.approx((2.25, math.hypot(0.15, 0.25)))
    cdf = law.log_prob(torch.tensor([[3.1, 0.4]], dtype=F64))
    exact = quad(
        lambda a: multivariate_normal([3 * math.cos(a), 3 * math.sin(a)], 0.04).pdf([3.1, 0.4]), -0.7, 1.0, points=[0.13], epsabs=1e-13
    )
    assert float(cdf) == pytest.approx(math.log(exact[0] / (2 * math.pi)), abs=1e-8)


def test_a_guided_flow_on_events_outside_the_span_and_back():
    """A (1, 6) event: what neither law spans is scaled by the product of powers of the rests, and the log-determinant counts it."""
    columns = torch.linalg.qr(torch.randn(6, 2, dtype=F64, generator=generator(2))).Q
    mean = torch.randn(6, dtype=F64, generator=generator(3))
    laws = [
        Gaussian(c * mean, SpectralCovariance.low_rank(columns[:, i : i + 1], torch.tensor([v], dtype=F64), rest), (1, 6))
        for i, (c, v, rest) in enumerate(((1.0, 2.0, 0.3), (0.5, 0.1, 0.8)))
    ]
    process, weight, t, s = EDM(2.0), 1.7, 0.9, 0.2
    flow = guided_flow(laws[0], laws[1], weight, process, t, s)
    k, e = (float(process.sigma(u)) for u in (t, s))
    rest = ((0.8 + e**2) / (0.8 + k**2)) ** ((1 - weight) / 2) * ((0.3 + e**2) / (0.3 + k**2)) ** (weight / 2)
    assert flow.rest == pytest.approx(rest, rel=1e-12)
    basis = flow.basis.matrix
    assert basis.shape == (6, 4)
    x = torch.randn(3, 1, 6, dtype=F64, generator=generator(4))
    flat = x.flatten(1)
    inside = (flat @ basis) @ flow.matrix.T + flow.offset
    expected = inside @ basis.T + rest * (flat - flat @ basis @ basis.T)
    torch.testing.assert_close(flow(x).flatten(1), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(flow.inverse()(flow(x)), x, rtol=0, atol=1e-11)
    zero = flow(torch.zeros(1, 1, 6, dtype=F64)).flatten(1)
    jacobian = flow(torch.eye(6, dtype=F64).reshape(6, 1, 6)).flatten(1) - zero
    assert float(flow.logdet) == pytest.approx(float(torch.linalg.slogdet(jacobian).logabsdet), rel=1e-10)


def test_the_largest_span_counts_columns_and_means_not_dimensions(monkeypatch):
    """Two laws of rank 1 span 4 columns in nine dimensions; as wide as the space, the space itself is taken."""
    columns = torch.linalg.qr(torch.randn(9, 6, dtype=F64, generator=generator(5))).Q
    mean = torch.randn(9, dtype=F64, generator=generator(6))

    def law(rank, sign):
        return Gaussian(sign * mean.abs(), SpectralCovariance.low_rank(columns[:, :rank], torch.arange(1.0, 1.0 + rank, dtype=F64), 0.3))

    monkeypatch.setattr("sfumato.exact.spectral.guided_flow.LARGEST", 4)
    assert guided_flow(law(1, 1), law(1, 2), 1.5, EDM(2.0), 0.9, 0.4).basis.rank == 4
    with pytest.raises(ArgumentError, match="span at most 4"):
        guided_flow(law(2, 1), law(1, 2), 1.5, EDM(2.0), 0.9, 0.4)
    monkeypatch.setattr("sfumato.exact.spectral.guided_flow.LARGEST", 9)
    assert guided_flow(law(6, 1), law(1, 2), 1.5, EDM(2.0), 0.9, 0.4).basis.rank == 9
    assert guided_flow(law(5, 1), law(1, 2), 1.5, EDM(2.0), 0.9, 0.4).basis.rank == 8
