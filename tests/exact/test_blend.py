"""Blends of two mixtures against dense conditioning of every pair of components, and their draws against that law."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import Blend, GaussianMixture, SpectralCovariance
from sfumato.seeds import noise

F64 = torch.float64


def mixture(weights, means, seed):
    """Full covariances of no common basis, unequal weights."""
    generator = torch.Generator().manual_seed(seed)
    roots = torch.randn(len(weights), 2, 2, generator=generator, dtype=F64)
    spreads = [SpectralCovariance.from_dense(r @ r.T + 0.2 * torch.eye(2, dtype=F64)) for r in roots]
    return GaussianMixture(weights, torch.tensor(means, dtype=F64), spreads)


SOURCE = mixture([0.2, 0.8], [[1.0, -0.5], [-2.0, 1.5]], 0)
TARGET = mixture([0.5, 0.1, 0.4], [[3.0, 0.0], [0.5, 2.0], [-1.0, -1.0]], 1)


def by_hand(x, a):
    """Means and second moments of `(x_0, x_1)` given the blend, from the joint Gaussian of every pair."""
    shares, means, seconds = [], [], []
    for w, m, v in zip(SOURCE.weights, SOURCE.means, SOURCE.covariances, strict=True):
        for u, n, s in zip(TARGET.weights, TARGET.means, TARGET.covariances, strict=True):
            joint = np.block([[v.dense().numpy(), np.zeros((2, 2))], [np.zeros((2, 2)), s.dense().numpy()]])
            centre = np.concatenate([m.numpy(), n.numpy()])
            seen = np.concatenate([(1 - a) * np.eye(2), a * np.eye(2)], 1)
            spread = seen @ joint @ seen.T
            gain = joint @ seen.T @ np.linalg.inv(spread)
            shares.append(float(w * u) * multivariate_normal(seen @ centre, spread).pdf(x))
            means.append(centre + gain @ (x - seen @ centre))
            seconds.append(joint - gain @ seen @ joint + np.outer(means[-1], means[-1]))
    shares = np.array(shares) / sum(shares)
    return np.einsum("k,kd->d", shares, means), np.einsum("k,kde->de", shares, seconds)


@pytest.mark.parametrize("a", [0.0, 0.3, 0.8, 1.0])
def test_sides_are_the_conditional_means_of_every_pair(a):
    blend, x = Blend(SOURCE, TARGET), torch.tensor([[0.3, -0.7], [1.5, 1.0], [-2.0, 0.4]], dtype=F64)
    sides, velocity = blend.sides(x, a), blend.velocity(x, a)
    for row, source, target, speed in zip(x.numpy(), *sides, velocity, strict=True):
        mean, _ = by_hand(row, a)
        np.testing.assert_allclose(torch.cat([source, target]).numpy(), mean, atol=1e-12)
        np.testing.assert_allclose(speed.numpy(), mean[2:] - mean[:2], atol=1e-12)


def test_draws_blend_to_the_state_and_have_the_pairs_moments():
    """4,000 draws of one state: the four means and ten second moments within 4.5 standard errors (a false alarm once in 10,000 seeds)."""
    blend, a, n = Blend(SOURCE, TARGET), 0.3, 4000
    x = torch.tensor([[0.3, -0.7]], dtype=F64).expand(n, 2)
    drawn = blend.draw(x, a, noise(3, n, (2,), dtype=F64))
    torch.testing.assert_close((1 - a) * drawn.source + a * drawn.target, x, rtol=0, atol=1e-12)
    both = torch.cat(list(drawn), 1)
    mean, second = by_hand(x[0].numpy(), a)
    products = both[:, :, None] * both[:, None]
    for values, expected in ((both, mean), (products, second)):
        assert bool(((values.mean(0) - torch.tensor(expected)).abs() < 4.5 * values.std(0) / n**0.5).all())


def test_a_draw_depends_on_its_own_noise_alone():
    """Also where another sample of the batch has another state; float32 states come back in float32."""
    blend, x = Blend(SOURCE, TARGET), torch.tensor([[0.3, -0.7], [1.5, 1.0], [-2.0, 0.4]])
    whole, last = blend.draw(x, 0.6, noise(5, 3, (2,), dtype=F64)), blend.draw(x[2:], 0.6, noise(5, 1, (2,), first=2, dtype=F64))
    for many, one in zip(whole, last, strict=True):
        assert many.dtype == torch.float32
        assert torch.equal(many[2:], one)


def test_laws_that_cannot_be_blended_are_refused():
    flat = GaussianMixture(None, torch.zeros(1, 2, dtype=F64), [SpectralCovariance.diagonal(torch.tensor([1.0, 0.0], dtype=F64))])
    line = GaussianMixture(None, torch.zeros(1, 1, dtype=F64), [SpectralCovariance.isotropic(1, 1.0)])
    image = GaussianMixture(SOURCE.weights, SOURCE.means, SOURCE.covariances, (1, 2))
    for pair in ((SOURCE, flat), (flat, SOURCE)):
        with pytest.raises(ArgumentError, match="singular"):
            Blend(*pair)
    for pair in ((SOURCE, line), (line, SOURCE), (image, image)):
        with pytest.raises(ShapeError, match="flat events"):
            Blend(*pair)
