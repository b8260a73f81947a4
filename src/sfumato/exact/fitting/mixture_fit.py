r"""Gaussian mixtures fitted to a stream by expectation-maximisation.

Every iteration is one pass: with the responsibilities `R` of the present mixture, component `k` gets weight, mean and covariance of the
data weighted by `R_k`. A floor `f` is added to every variance; that maximises the likelihood with the penalty `f tr(C_k^{-1}) / 2` per
sample of the component, so what rises from pass to pass is the penalised likelihood. Up to `statistics.DENSE` dimensions covariances are
exact (with `rank`: the leading modes plus the mean of the others, the maximiser for that family, Tipping & Bishop 1999); beyond, each is
a Nystroem sketch whose subspace is iterated along with the fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from sfumato.errors import ArgumentError
from sfumato.exact.fitting.kmeans import k_means, squared_distances
from sfumato.exact.fitting.sketch import nystroem, orthonormal, random_system
from sfumato.exact.fitting.statistics import DENSE, moments_of
from sfumato.exact.fitting.stream import Batches, Stream
from sfumato.exact.laws.mixture import GaussianMixture
from sfumato.exact.spectral.covariance import SpectralCovariance


class _Fit(NamedTuple):
    """Components, and for sketched covariances the systems `(K, dim, width)` to sketch with next."""

    weights: Tensor
    means: Tensor
    covariances: list[SpectralCovariance]
    systems: Tensor | None
    likelihood: float  # mean log-likelihood per sample of the mixture that gave the responsibilities

    def mixture(self, event_shape: tuple[int, ...]) -> GaussianMixture:
        return GaussianMixture(self.weights, self.means, self.covariances, event_shape)


def fit_mixture(
    batches: Batches,
    components: int,
    rank: int | None = None,
    *,
    floor: float = 1e-3,
    seed: int = 0,
    iterations: int = 100,
    tolerance: float = 1e-3,
) -> GaussianMixture:
    """A Gaussian mixture of (locally) greatest likelihood, in float64; deterministic for a seed and a split into batches.

    Components that are left with less than half a sample are dropped, so there may be fewer than asked for.

    Arguments:
        batches: see `sfumato.exact.fitting.stream.Batches`.
        components: how many to start with.
        rank: eigenvectors per component, plus isotropic rest; None: all of them, which takes at most `statistics.DENSE` dimensions.
        floor: added to every component's variance in every direction, as a fraction of the data's mean variance per dimension. It keeps
            components from collapsing on few samples; 0 is allowed and does not.
        seed: of the k-means++ start.
        iterations: at most so many passes of expectation-maximisation.
        tolerance: stop when the mean log-likelihood per sample rises by less.

    Raises:
        DataError: an empty stream, NaN or infinite values, constant data, fewer distinct samples than components.
        ArgumentError: an iterator; no component or iteration; a floor outside [0, 1); a rank outside [0, dim), or none beyond `DENSE`
            dimensions; a component that collapsed for want of a floor.

    Example:
        >>> from sfumato.data import moons
        >>> from sfumato.exact import fit_gaussian, fit_mixture
        >>> data = moons()
        >>> gains = [fit_mixture(data.batches(512), n).log_prob(data.test).mean() for n in (1, 8)]
        >>> print(f"{float(gains[1] - gains[0]):.2f} nats better than one Gaussian")
        1.44 nats better than one Gaussian
    """
    data = Stream(batches)
    if components < 1 or iterations < 1 or not 0 <= floor < 1:
        raise ArgumentError("components, iterations, floor", (components, iterations, floor), "at least 1, at least 1, in [0, 1)")
    if (rank is None and data.dim > DENSE) or (rank is not None and not 0 <= rank < data.dim):
        raise ArgumentError("rank", rank, f"a rank in [0, {data.dim})" + ("" if data.dim > DENSE else ", or None"))
    moments = moments_of(data, dense=False)
    least = floor * float(moments.variances.mean())
    centres = k_means(data, components, seed)
    systems = None
    if data.dim > DENSE and rank is not None:
        systems = random_system(data.dim, rank, seed, data.device).expand(components, -1, -1)

    def nearest(x: Tensor) -> Tensor:
        return torch.log(one_hot(squared_distances(x, centres).argmin(1), len(centres)).to(x))

    fit = _maximise(data, nearest, centres, systems, rank, least)
    previous = -math.inf
    for _ in range(iterations):
        fit = _maximise(data, fit.mixture((data.dim,)).joint_log_prob, fit.means, fit.systems, rank, least)
        if fit.likelihood - previous < tolerance:
            break
        previous = fit.likelihood
    return fit.mixture(data.event_shape)


def _maximise(
    data: Stream, joint: Callable[[Tensor], Tensor], means: Tensor, systems: Tensor | None, rank: int | None, least: float
) -> _Fit:
    """One pass: components of greatest likelihood, given the joint log-densities `(n, K)` of a sample and the component it came of."""
    k, dim = means.shape
    count, likelihood = means.new_zeros(k), 0.0
    first, trace = torch.zeros_like(means), means.new_zeros(k)
    second = means.new_zeros(k, dim, dim if systems is None else systems.shape[2])
    for x in data:
        logs = joint(x)
        likelihood += float(torch.logsumexp(logs, 1).sum())
        shares = torch.softmax(logs, 1)
        count += shares.sum(0)
        # one component at a time: memory of one batch, and scatter about the old mean loses no digits to it
        for j in range(k):
            away = x - means[j]
            weighted = shares[:, j, None] * away
            first[j] += weighted.sum(0)
            trace[j] += (weighted * away).sum()
            second[j] += weighted.T @ (away if systems is None else away @ systems[j])
    kept = torch.nonzero(count >= 0.5)[:, 0]
    n = count[kept]
    shift = first[kept] / n[:, None]
    second = second[kept] / n[:, None, None]
    if systems is None:
        second -= shift[:, :, None] * shift[:, None, :]
        covariances = [SpectralCovariance.from_dense((c + c.T) / 2, rank).map(lambda v: v + least) for c in second]
        return _Fit(n / n.sum(), means[kept] + shift, covariances, None, likelihood / float(count.sum()))
    systems = systems[kept]
    second -= shift[:, :, None] * (shift[:, None, :] @ systems)
    traces = (trace[kept] / n - shift.square().sum(1)).tolist()
    covariances = [nystroem(q, y, float(t), rank or 0, least) for q, y, t in zip(systems, second, traces, strict=True)]
    return _Fit(n / n.sum(), means[kept] + shift, covariances, orthonormal(second), likelihood / float(count.sum()))
