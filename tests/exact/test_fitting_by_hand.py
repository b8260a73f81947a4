"""Fits against the same steps written out in NumPy: expectation-maximisation, Lloyd's iterations, a Nystroem sketch of a known matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from sfumato.errors import DataError
from sfumato.exact import SpectralCovariance, fit_gaussian, fit_mixture
from sfumato.exact.fitting.kmeans import k_means, spread_centres, squared_distances
from sfumato.exact.fitting.sketch import nystroem, orthonormal, random_system
from sfumato.exact.fitting.statistics import moments_of
from sfumato.exact.fitting.stream import Stream

F64 = torch.float64
FIT = "sfumato.exact.fitting.mixture_fit"


def generator(seed):
    return torch.Generator().manual_seed(seed)


def points(n=60, dim=3):
    """Two overlapping clouds of unequal size, scale and offset."""
    g = generator(0)
    x = torch.randn(n, dim, dtype=F64, generator=g) * torch.linspace(0.5, 2.0, dim, dtype=F64)
    x[: n // 3] = 0.6 * x[: n // 3] + torch.linspace(1.0, 3.0, dim, dtype=F64)
    return x + 5


def cut(covariance, rank):
    """The leading eigenvectors, and the mean of the other eigenvalues."""
    values, vectors = np.linalg.eigh(covariance)
    values[: len(values) - rank] = values[: len(values) - rank].mean()
    return (vectors * values) @ vectors.T


def maximised(x, shares, least, rank):
    count = shares.sum(0)
    means = shares.T @ x / count[:, None]
    spreads = [np.cov(x.T, aweights=s, bias=True) for s in shares.T]
    return count / len(x), means, [(c if rank is None else cut(c, rank)) + least * np.eye(x.shape[1]) for c in spreads]


def by_hand(x, centres, floor, iterations, tolerance, rank=None):
    """`(weights, means, covariances)` and the number of passes."""
    least = floor * x.var(0).mean()
    nearest = np.square(x[:, None] - centres).sum(2).argmin(1)
    fit, previous = maximised(x, np.eye(len(centres))[nearest], least, rank), -np.inf
    for done in range(1, iterations + 1):  # noqa: B007
        logs = np.stack([np.log(w) + multivariate_normal(m, c).logpdf(x) for w, m, c in zip(*fit, strict=True)], 1)
        likelihood = logsumexp(logs, axis=1).mean()
        fit = maximised(x, np.exp(logs - logsumexp(logs, axis=1, keepdims=True)), least, rank)
        if likelihood - previous < tolerance:
            break
        previous = likelihood
    return fit, done


def compare(law, fit):
    weights, means, spreads = fit
    np.testing.assert_allclose(law.weights.numpy(), weights, rtol=1e-9)
    np.testing.assert_allclose(law.means.numpy(), means, rtol=1e-9)
    np.testing.assert_allclose(torch.stack([c.dense() for c in law.covariances]).numpy(), spreads, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("rank", "sketched"), [(None, False), (1, False), (1, True)])
def test_a_fit_is_expectation_maximisation_written_out(monkeypatch, rank, sketched):
    """From given centres; the tolerance stops it where the mean log-likelihood per sample rises by less, whatever the batches. A sketch
    that is as wide as the space is no sketch."""
    x, centres = points(), torch.tensor([[4.0, 5.0, 5.0], [5.0, 5.0, 6.0]], dtype=F64)
    monkeypatch.setattr(f"{FIT}.k_means", lambda *_: centres)
    if sketched:
        monkeypatch.setattr(f"{FIT}.DENSE", 2)
    passes = []
    for iterations, tolerance in ((1, 0.0), (3, 0.0), (100, 0.03), (100, 1e-3)):
        fit, done = by_hand(x.numpy(), centres.numpy(), 0.002, iterations, tolerance, rank)
        passes.append(done)
        compare(fit_mixture([x[:7], x[7:7], x[7:]], 2, rank, floor=0.002, iterations=iterations, tolerance=tolerance), fit)
    assert passes == sorted(passes)
    assert 2 < passes[2] < passes[3] < 100
    again, _ = by_hand(x.numpy(), centres.numpy(), 1e-3, 100, 1e-3, rank)
    compare(fit_mixture(x, 2, rank), again)  # the defaults


def test_a_component_without_samples_is_dropped(monkeypatch):
    x, centres = points(), torch.tensor([[5.0, 5.0, 5.0], [500.0, 0.0, 0.0], [6.0, 7.0, 8.0]], dtype=F64)
    monkeypatch.setattr(f"{FIT}.k_means", lambda *_: centres)
    fit, _ = by_hand(x.numpy(), centres.numpy()[[0, 2]], 0.05, 2, 0.0)
    compare(fit_mixture(x, 3, floor=0.05, iterations=2, tolerance=0.0), fit)
    monkeypatch.setattr(f"{FIT}.DENSE", 2)
    fit, _ = by_hand(x.numpy(), centres.numpy()[[0, 2]], 0.05, 2, 0.0, 1)
    compare(fit_mixture(x, 3, 1, floor=0.05, iterations=2, tolerance=0.0), fit)


def test_sketches_as_wide_as_the_space_are_exact(monkeypatch):
    """Three dimensions, rank 1 and ten columns more: the sketch sees all, so the fit is the dense one, rest and floor included."""
    x, centres = points(), torch.tensor([[5.0, 5.0, 5.0], [6.0, 7.0, 8.0]], dtype=F64)
    monkeypatch.setattr(f"{FIT}.k_means", lambda *_: centres)
    monkeypatch.setattr(f"{FIT}.DENSE", 2)
    fit, _ = by_hand(x.numpy(), centres.numpy(), 0.05, 3, 0.0, 1)
    got = fit_mixture([x[:20], x[20:]], 2, 1, floor=0.05, iterations=3, tolerance=0.0)
    assert [c.rank for c in got.covariances] == [1, 1]
    compare(got, fit)


def test_nystroem_is_exact_for_a_matrix_of_the_sketchs_rank():
    """Rank 2 of rank 3 in five dimensions: leading modes by NumPy, the trace kept by the rest, the floor on top."""
    root = torch.randn(5, 3, dtype=F64, generator=generator(1))
    c = root @ root.T
    system = orthonormal(torch.randn(5, 3, dtype=F64, generator=generator(2)))
    torch.testing.assert_close(system.T @ system, torch.eye(3, dtype=F64), rtol=0, atol=1e-13)
    values = np.linalg.eigvalsh(c.numpy())[::-1]
    got = nystroem(system, c @ system, float(c.trace()), 2, 0.25)
    np.testing.assert_allclose(got.eigenvalues.numpy(), values[:2] + 0.25, rtol=1e-8)
    assert got.rest == pytest.approx(values[2] / 3 + 0.25, rel=1e-8)
    np.testing.assert_allclose(got.dense().numpy(), cut(c.numpy(), 2) + 0.25 * np.eye(5), atol=1e-8)
    full = nystroem(torch.eye(5, dtype=F64), c + torch.eye(5, dtype=F64), float(c.trace()) + 5, 5, 0.0)
    np.testing.assert_allclose(full.dense().numpy(), c.numpy() + np.eye(5), atol=1e-12)
    # a trace below that of the modes, as rounding makes it, leaves no negative rest; no matrix at all leaves the floor
    assert nystroem(system, c @ system, 0.5 * float(values[:2].sum()), 2, 0.25).rest == 0.25
    nothing = nystroem(system, torch.zeros(5, 3, dtype=F64), 0.0, 2, 0.25)
    np.testing.assert_allclose(nothing.dense().numpy(), 0.25 * np.eye(5), atol=1e-12)


def test_a_random_system_is_orthonormal_ten_columns_wider_than_the_rank():
    for dim, rank, width in ((40, 3, 13), (12, 3, 12), (13, 3, 13), (5, 0, 5)):
        got = random_system(dim, rank, 4, torch.device("cpu"))
        assert got.shape == (dim, width)
        torch.testing.assert_close(got.T @ got, torch.eye(width, dtype=F64), rtol=0, atol=1e-12)
        assert torch.equal(got, random_system(dim, rank, 4, torch.device("cpu")))
        assert not torch.equal(got, random_system(dim, rank, 5, torch.device("cpu")))


def test_many_dimensions_without_modes_and_the_defaults():
    """1,100 dimensions: rank 0 is the mean variance plus the floor; three passes from seed 0 and no floor are the default."""
    x = 3 + torch.randn(30, 1100, dtype=F64, generator=generator(3)) * torch.linspace(0.1, 2, 1100, dtype=F64)
    mean = float(x.var(0, unbiased=False).mean())
    none = fit_gaussian(x, rank=0, floor=0.2)
    assert none.covariance.rank == 0
    assert none.covariance.rest == pytest.approx(1.2 * mean, rel=1e-12)
    given = fit_gaussian(x, rank=4, floor=0.0, passes=3, seed=0)
    assert torch.equal(fit_gaussian(x, rank=4).covariance.spectrum, given.covariance.spectrum)
    floored = fit_gaussian(x, rank=4, floor=0.2)
    torch.testing.assert_close(floored.covariance.spectrum, given.covariance.spectrum + 0.2 * mean, rtol=1e-10, atol=0)
    for other in (fit_gaussian(x, rank=4, passes=2), fit_gaussian(x, rank=4, passes=4), fit_gaussian(x, rank=4, seed=1)):
        assert not torch.equal(other.covariance.spectrum, given.covariance.spectrum)


def test_constant_data_are_told_from_data_that_hardly_vary():
    """A variance of 1e-30 of the squared mean is one, and none is none."""
    x = torch.tensor([[1.0, 2.0], [1.0, 2.0]], dtype=F64)
    with pytest.raises(DataError, match="constant"):
        moments_of(Stream(x), dense=False)
    with pytest.raises(DataError, match="constant"):
        moments_of(Stream(-x), dense=True)
    x[1, 0] += 4e-15
    assert float(moments_of(Stream(x), dense=False).variances.sum()) > 0


def test_lloyds_iterations_written_out():
    """From the same start, over batches (an empty one among them): every centre the mean of what is nearest; at most so many times."""
    x = points(40, 2)
    data, start = Stream([x[:15], x[:0], x[15:]]), spread_centres(Stream([x[:15], x[:0], x[15:]]), 4, 2)
    assert len(torch.cdist(start, x).argmin(1).unique()) == 4
    torch.testing.assert_close(squared_distances(x, start), (x[:, None] - start).square().sum(2), rtol=1e-12, atol=1e-13)
    centres = start.numpy()
    for iterations in range(1, 5):
        nearest = np.square(x.numpy()[:, None] - centres).sum(2).argmin(1)
        centres = np.stack([x.numpy()[nearest == k].mean(0) for k in range(4)])
        np.testing.assert_allclose(k_means(data, 4, 2, iterations).numpy(), centres, rtol=1e-12)


def test_an_empty_centre_moves_to_the_farthest_sample(monkeypatch):
    """The centre that nobody is nearest to takes the outlier, in the first iteration, and the other one the mean."""
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 9.0], [0.5, 0.0]], dtype=F64)
    start = torch.tensor([[0.0, 0.0], [50.0, 0.0]], dtype=F64)
    monkeypatch.setattr("sfumato.exact.fitting.kmeans.spread_centres", lambda *_: start)
    for batches in ([x], [x[:3], x[3:]], [x[2:], x[:2]]):
        got = k_means(Stream(batches), 2, 0, 1)
        torch.testing.assert_close(got, torch.tensor([[0.375, 2.25], [0.0, 9.0]], dtype=F64))


def test_centres_are_drawn_in_proportion_to_squared_distance():
    """The second of two, on points 0, 1 and 3 given the first: 240 seeds against the expected shares, within 4.5 standard deviations."""
    x, n = torch.tensor([[0.0], [1.0], [3.0]], dtype=F64), 240
    drawn = torch.stack([spread_centres(Stream([x[:2], x[2:]]), 2, s)[:, 0] for s in range(n)])
    for first, others in ((0.0, {1.0: 0.1, 3.0: 0.9}), (1.0, {0.0: 0.2, 3.0: 0.8}), (3.0, {0.0: 9 / 13, 1.0: 4 / 13})):
        rows = drawn[drawn[:, 0] == first]
        assert abs(len(rows) / n - 1 / 3) < 4.5 * (2 / 9 / n) ** 0.5
        for value, share in others.items():
            assert abs(float((rows[:, 1] == value).double().mean()) - share) < 4.5 * (share * (1 - share) / len(rows)) ** 0.5


def test_a_fitted_gaussian_without_rank_keeps_every_direction():
    law = fit_gaussian(points(), floor=0.5)
    x = points().numpy()
    np.testing.assert_allclose(
        law.covariance.dense().numpy(), np.cov(x.T, bias=True) + 0.5 * x.var(0).mean() * np.eye(3), rtol=1e-11, atol=1e-12
    )
    assert isinstance(law.covariance, SpectralCovariance)
    assert law.covariance.rank == 3


def test_up_to_the_dense_limit_a_rank_is_cut_from_the_whole_covariance():
    """14 dimensions and rank 2, of which a sketch would see 12: the fit of one component is the covariance's own, after one pass."""
    x = torch.randn(40, 14, dtype=F64, generator=generator(8)) * torch.linspace(0.5, 1.5, 14, dtype=F64)
    expected = cut(np.cov(x.T.numpy(), bias=True), 2) + 0.1 * x.numpy().var(0).mean() * np.eye(14)
    law = fit_mixture(x, 1, 2, floor=0.1, iterations=1)
    np.testing.assert_allclose(law.covariances[0].dense().numpy(), expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(law.mean.numpy(), x.numpy().mean(0), rtol=1e-11)
