"""Points and mixtures against sums over their parts: weights, offsets, spread, events of two axes, ties, draws, the limits at both ends."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.errors import ArgumentError
from sfumato.exact import Empirical, Gaussian, GaussianMixture, SpectralCovariance, TiltedPoints, ladder, law_sample, posterior_sample
from sfumato.exact.laws.softmax import PointSet
from sfumato.noise import EDM, FlowMatching, VariancePreserving

F64 = torch.float64
LOG_TWO_PI = math.log(2 * math.pi)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def cloud(n=7, offset=0.0):
    return offset + torch.randn(n, 2, 3, dtype=F64, generator=generator(0))


WEIGHTS = torch.tensor([0.05, 0.3, 0.1, 0.2, 0.15, 0.12, 0.08], dtype=F64)


@pytest.mark.parametrize("offset", [0.0, 30.0])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_a_soft_nearest_point_its_mass_and_covariance_by_sums(monkeypatch, weights, offset):
    """With and without recentring, in blocks of 3 points and chunks of 2 queries."""
    points = cloud(offset=offset).flatten(1)
    y = offset + torch.randn(5, 6, dtype=F64, generator=generator(1))
    k, v = torch.tensor([0.3, 0.7, 1.0, 2.0, 50.0], dtype=F64), torch.randn(5, 6, dtype=F64, generator=generator(2))
    prior = torch.full((7,), 1 / 7, dtype=F64) if weights is None else weights
    logs = prior.log() - (y[:, None] - points).square().sum(2) / (2 * k[:, None] ** 2)
    shares = torch.softmax(logs, 1)
    mean = shares @ points
    product = torch.einsum("bn,bnd,bne,be->bd", shares, points - mean[:, None], points - mean[:, None], v)
    for sizes in ({}, {"BLOCK": 3, "SCORES": 14, "GATHER": 12}):
        for name, size in sizes.items():
            monkeypatch.setattr(f"sfumato.exact.laws.softmax.{name}", size)
        cloud_of = PointSet(points, weights)
        torch.testing.assert_close(cloud_of.mean, prior @ points, rtol=0, atol=1e-13)
        got, mass = cloud_of.soft_nearest(y, k)
        torch.testing.assert_close(got, mean, rtol=0, atol=1e-11)
        torch.testing.assert_close(mass, torch.logsumexp(logs, 1), rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(cloud_of.covariance_product(y, k, v), product, rtol=0, atol=1e-10)


@pytest.mark.parametrize("weights", [None, [0.5, 0.2, 0.3]])
def test_mass_without_noise_is_the_weight_of_what_is_hit(weights):
    """`-inf` for a query however close that is no point, `log w` for one that is, the weights of duplicates together; ties by weight."""
    points = torch.tensor([[0.0, 1.0], [0.0, 1.0], [2.0, 1.0]], dtype=F64)
    prior = torch.full((3,), 1 / 3, dtype=F64) if weights is None else torch.tensor(weights, dtype=F64)
    got, mass = PointSet(points, None if weights is None else prior).soft_nearest(
        torch.tensor([[0.0, 1.0], [2.0, 1.0], [2.0, 1.1], [1.0, 1.0]], dtype=F64), torch.zeros(4, dtype=F64)
    )
    assert float(mass[0]) == pytest.approx(math.log(float(prior[:2].sum())), rel=1e-12)
    assert float(mass[1]) == pytest.approx(math.log(float(prior[2])), rel=1e-12)
    assert mass[2:].tolist() == [-math.inf, -math.inf]
    torch.testing.assert_close(got, torch.stack([points[0], points[2], points[2], prior @ points]), rtol=0, atol=1e-14)


def test_points_twice_through_noise_are_the_mixture_of_both():
    """Scales and spreads compose; conditioned, cast and asked where no signal is left."""
    first, second, x = VariancePreserving(), FlowMatching(), torch.randn(3, 2, 3, dtype=F64, generator=generator(3))
    law = Empirical(cloud(offset=2.0), WEIGHTS).through(first, 0.2).through(second, 0.3)
    (a, s), (b, r) = (tuple(float(v) for v in p.levels(t)) for p, t in ((first, 0.2), (second, 0.3)))
    assert law.scale == pytest.approx(a * b, rel=1e-14)
    assert law.std == pytest.approx(math.sqrt(b**2 * s**2 + r**2), rel=1e-14)
    parts = [SpectralCovariance.isotropic(6, law.std**2)] * 7
    mixture = GaussianMixture(WEIGHTS, law.scale * cloud(offset=2.0), parts, (2, 3))
    for t in (0.1, 0.6, 1.0):
        noisy, other = law.through(second, t), mixture.through(second, t)
        torch.testing.assert_close(noisy.log_prob(x), other.log_prob(x), rtol=1e-11, atol=0)
        torch.testing.assert_close(noisy.score(x), other.score(x), rtol=0, atol=1e-11)
        torch.testing.assert_close(law.posterior_mean(x, second, t), mixture.posterior_mean(x, second, t), rtol=0, atol=1e-11)
    plain = -0.5 * (x.flatten(1).square().sum(1) + 6 * LOG_TWO_PI)
    torch.testing.assert_close(law.through(second, 1.0).log_prob(x), plain, rtol=1e-12, atol=0)
    torch.testing.assert_close(law.mean, (law.scale * WEIGHTS @ cloud(offset=2.0).flatten(1)), rtol=0, atol=1e-13)
    A, y = torch.randn(2, 6, dtype=F64, generator=generator(4)), torch.tensor([0.3, -1.0], dtype=F64)
    torch.testing.assert_close(law.given(A, y, 0.4).log_prob(x), mixture.given(A, y, 0.4).log_prob(x), rtol=1e-9, atol=0)
    single = law.to(torch.float32)
    assert (single.scale, single.std, single.event_shape, single.dtype) == (law.scale, law.std, (2, 3), torch.float32)
    torch.testing.assert_close(single.weights, law.weights)
    assert law.to(F64) is law


@pytest.mark.parametrize("block", [4096, 3])
def test_single_points_given_an_observation_are_weighed_by_bayes(monkeypatch, block):
    monkeypatch.setattr("sfumato.exact.laws.empirical.BLOCK", block)
    law, A = Empirical(cloud(), WEIGHTS), torch.randn(2, 6, dtype=F64, generator=generator(4))
    y, noise = torch.tensor([0.3, -1.0], dtype=F64), torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=F64)
    away = y - cloud().flatten(1) @ A.T
    logs = WEIGHTS.log() - 0.5 * (away @ torch.linalg.inv(noise) * away).sum(1)
    torch.testing.assert_close(law.given(A, y, noise).weights, torch.softmax(logs, 0), rtol=1e-11, atol=0)
    flat = law.given(A, y, 1e-3)
    assert len(flat) < 7
    assert float(flat.weights.sum()) == pytest.approx(1, rel=1e-14)
    with pytest.raises(ArgumentError, match="without variance"):
        law.given(A, y, 0.0)


def thick():
    """Components of ranks 6, 1 and 0, of unequal weight, on (2, 3) events."""
    root = torch.randn(6, 6, dtype=F64, generator=generator(5))
    column = torch.linalg.qr(torch.randn(6, 1, dtype=F64, generator=generator(6))).Q
    spreads = [
        SpectralCovariance.from_dense(root @ root.T / 6 + 0.1 * torch.eye(6, dtype=F64)),
        SpectralCovariance.low_rank(column, torch.tensor([2.0], dtype=F64), 0.2),
        SpectralCovariance.isotropic(6, 0.5),
    ]
    return GaussianMixture([0.5, 0.2, 0.3], torch.randn(3, 2, 3, dtype=F64, generator=generator(7)), spreads, (2, 3))


def dense_posterior(law, x, alpha, sigma):
    """Mean, covariance and log-density, component by component."""
    logs, means, seconds = [], [], []
    for w, m, c in zip(law.weights, law.means, law.covariances, strict=True):
        noisy = torch.distributions.MultivariateNormal(alpha * m, alpha**2 * c.dense() + sigma**2 * torch.eye(6, dtype=F64))
        gain = alpha * c.dense() @ torch.linalg.inv(noisy.covariance_matrix)
        logs.append(w.log() + noisy.log_prob(x))
        means.append(m + gain @ (x - alpha * m))
        seconds.append(c.dense() - alpha * gain @ c.dense() + torch.outer(means[-1], means[-1]))
    shares = torch.softmax(torch.stack(logs), 0)
    mean = shares @ torch.stack(means)
    return mean, torch.einsum("k,kde->de", shares, torch.stack(seconds)) - torch.outer(mean, mean), torch.logsumexp(torch.stack(logs), 0)


@pytest.mark.parametrize("t", [0.05, 0.6])
def test_a_mixture_of_ranks_on_events_is_its_parts(t):
    law, process, x = thick(), VariancePreserving(), torch.randn(3, 2, 3, dtype=F64, generator=generator(8))
    alpha, sigma = (float(v) for v in process.levels(t))
    mean, covariance, density = (
        law.posterior_mean(x, process, t),
        law.posterior_covariance(x, process, t),
        law.through(process, t).log_prob(x),
    )
    times = law.posterior_mean(x, process, torch.full((3,), t, dtype=F64))
    for i in range(3):
        m, c, d = dense_posterior(law, x[i].flatten(), alpha, sigma)
        torch.testing.assert_close(mean[i].flatten(), m, rtol=0, atol=1e-11)
        torch.testing.assert_close(times[i].flatten(), m, rtol=0, atol=1e-11)
        torch.testing.assert_close(covariance[i], c, rtol=0, atol=1e-11)
        torch.testing.assert_close(density[i], d, rtol=1e-11, atol=0)
    whole = law.gaussian()
    away = law.means - law.mean
    total = sum(w * (c.dense() + torch.outer(a, a)) for w, c, a in zip(law.weights, law.covariances, away, strict=True))
    torch.testing.assert_close(whole.covariance.dense(), total, rtol=0, atol=1e-12)
    assert (whole.event_shape, law.gaussian(2).covariance.rank) == ((2, 3), 2)
    assert float(law.posterior_covariance(x, EDM(), 0.0).abs().max()) == 0


@pytest.mark.parametrize("kind", ["mixture", "points", "noisy points", "gaussian"])
def test_draws_of_a_posterior_have_its_moments(kind):
    """4,000 draws at one state: 6 means and 36 second moments within 5 standard errors (a false alarm once in 40,000 seeds)."""
    process, t, n = VariancePreserving(), 0.4, 4000
    alpha, sigma = (float(v) for v in process.levels(t))
    law = {
        "mixture": thick,
        "points": lambda: Empirical(cloud(), WEIGHTS),
        "gaussian": lambda: Gaussian(thick().means[0], thick().covariances[1], (2, 3)),
        "noisy points": lambda: thick(),
    }[kind]()
    x = torch.randn(1, 2, 3, dtype=F64, generator=generator(9))
    if kind == "noisy points":
        with pytest.raises(ArgumentError, match="points, a Gaussian or a mixture"):
            posterior_sample(Empirical(cloud()).through(process, 0.1), x, process, t, generator(0))
        return
    if kind == "points":
        shares = torch.softmax(WEIGHTS.log() - (x - alpha * cloud()).flatten(1).square().sum(1) / (2 * sigma**2), 0)
        mean = shares @ cloud().flatten(1)
        covariance = torch.einsum("n,nd,ne->de", shares, cloud().flatten(1) - mean, cloud().flatten(1) - mean)
    else:
        parts = law if kind == "mixture" else GaussianMixture(None, law.mean[None], [law.covariance])
        mean, covariance, _ = dense_posterior(parts, x.flatten(), alpha, sigma)
    drawn = posterior_sample(law, x.expand(n, 2, 3), process, t, generator(10))
    assert drawn.shape == (n, 2, 3)
    flat = drawn.flatten(1)
    products = (flat - mean)[:, :, None] * (flat - mean)[:, None]
    for values, expected in ((flat, mean), (products, covariance)):
        assert bool(((values.mean(0) - expected).abs() < 5 * values.std(0) / n**0.5 + 1e-9).all())


def test_draws_of_points_are_the_points_as_often_as_their_weights_say():
    """Also scaled, in the event's shape; a law that is none of points is drawn as `Law.sample` does, by one number of the stream."""
    law, n = Empirical(cloud(), WEIGHTS), 4000
    drawn = law_sample(law, n, generator(11)).flatten(1)
    hits = (drawn[:, None] == cloud().flatten(1)).all(2).double()
    assert float(hits.sum()) == n
    assert bool(((hits.mean(0) - WEIGHTS).abs() < 4.5 * (WEIGHTS * (1 - WEIGHTS) / n).sqrt()).all())
    g = generator(12)
    seed = int(torch.randint(2**63 - 1, (), generator=g))
    assert torch.equal(law_sample(thick(), 3, generator(12)), thick().sample(3, seed))


def test_rungs_on_events_at_times_per_sample_in_small_pieces(monkeypatch):
    """Every rung against its formula, three samples at three times, two queries at a time."""
    monkeypatch.setattr("sfumato.exact.learning.ladder.SCORES", 14)
    points, process = cloud(offset=1.0), VariancePreserving()
    flat, mean = points.flatten(1), points.flatten(1).mean(0)
    spread = (flat - mean).T @ (flat - mean) / 7
    law = Gaussian(mean, SpectralCovariance.from_dense(spread), (2, 3))
    x, times = torch.randn(3, 2, 3, dtype=F64, generator=generator(13)), torch.tensor([0.2, 0.5, 0.9], dtype=F64)
    rungs = {name: d.denoise(x, times).flatten(1) for name, d in ladder(points, law, process).items()}
    for i, t in enumerate(times.tolist()):
        alpha, sigma = (float(v) for v in process.levels(t))
        away = x[i].flatten() - alpha * mean
        distance = (x[i].flatten() / alpha - flat).square().sum(1)
        eye = torch.eye(6, dtype=F64)
        expected = {
            "nearest": flat[distance.argmin()],
            "points": torch.softmax(-(alpha**2) * distance / (2 * sigma**2), 0) @ flat,
            "tilted": torch.softmax(alpha * (flat - mean) @ away / sigma**2, 0) @ flat,
            "gaussian": mean + alpha * spread @ torch.linalg.solve(alpha**2 * spread + sigma**2 * eye, away),
            "second": mean + (alpha * spread / sigma**2 - alpha**3 * spread @ spread / sigma**4) @ away,
            "first": mean + alpha * spread / sigma**2 @ away,
        }
        assert list(rungs) == list(expected)
        for name, value in expected.items():
            torch.testing.assert_close(rungs[name][i], value, rtol=1e-10, atol=1e-11)
    assert TiltedPoints(points.float(), process).denoise(x, times).dtype == F64


def test_samples_start_at_number_0_and_pick_components_by_weight():
    """600 of three far components, the last of weight 0: shares within 4.5 standard deviations, and never the last."""
    means = torch.tensor([[0.0], [50.0], [100.0]], dtype=F64)
    law = GaussianMixture([0.25, 0.75, 0.0], means, [SpectralCovariance.isotropic(1, 1e-4)] * 3)
    drawn = law.sample(600, 3)
    assert torch.equal(drawn, law.sample(600, 3, first=0))
    share = float((drawn < 25).double().mean())
    assert abs(share - 0.25) < 4.5 * (0.25 * 0.75 / 600) ** 0.5
    assert float(drawn.max()) < 75
    points = Empirical(means, [0.25, 0.75, 0.0])
    assert torch.equal(points.sample(600, 3) < 25, drawn < 25)


def test_what_lies_outside_a_basis_has_no_variance_unless_told():
    columns = torch.eye(3, dtype=F64)[:, :1]
    bare = SpectralCovariance(SpectralCovariance.low_rank(columns, torch.ones(1, dtype=F64), 2.0).basis, torch.ones(1, dtype=F64))
    assert (bare.rest, bare.singular) == (0.0, True)
    torch.testing.assert_close(bare.dense(), torch.diag(torch.tensor([1.0, 0.0, 0.0], dtype=F64)))
