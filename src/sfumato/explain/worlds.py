"""Closed forms of the data, fitted to a stream of it: what a model is compared with."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from sfumato.data import Dataset
from sfumato.data.dataset import Batches
from sfumato.exact import Empirical, Gaussian, GaussianMixture, Law, SpectralCovariance, fit_gaussian, fit_mixture

_FULL = 256
"""Up to this many dimensions every eigenvector is kept."""
_RANK, _MIXTURE_RANK = 256, 32
_ITERATIONS = 12
_FITTED, _HELD = 2**24, 2**27
"""Beyond so many numbers a mixture is fitted to, and the points are, an equally spaced part of the data: a mixture's pass costs as much as
all of the Gaussian, and points are held in memory."""


@dataclass(frozen=True)
class Worlds:
    """What the data looks like to a closed form: one Gaussian, a small mixture, and the points themselves (of large data a part)."""

    gaussian: Gaussian
    mixture: GaussianMixture
    empirical: Empirical

    def approximants(self) -> dict[str, Law]:
        """The laws by name, coarsest first; `isotropic` has the data's mean and its mean variance in every direction."""
        law = self.gaussian
        ball = SpectralCovariance.isotropic(law.dim, float(law.covariance.trace()) / law.dim, dtype=law.dtype)
        return {
            "isotropic": Gaussian(law.mean, ball, law.event_shape),
            "gaussian": law,
            "mixture": self.mixture,
            "empirical": self.empirical,
        }


def fit_worlds(data: Dataset, components: int = 10, seed: int = 0) -> Worlds:
    """Fit the three laws to a data set's training part, in float32 states and float64 statistics."""
    dim, n = data.train[0].numel(), len(data.train)
    full = dim <= _FULL
    part, points = (data.train[:: math.ceil(n * dim / most)] for most in (_FITTED, _HELD))
    components = max(1, min(components, len(part) // 20))
    return Worlds(
        fit_gaussian(data.batches(1024), None if full else min(_RANK, n - 1)).to(torch.float32),
        fit_mixture(
            Batches(part, 1024), components, None if full else _MIXTURE_RANK, seed=seed, iterations=100 if full else _ITERATIONS
        ).to(torch.float32),
        Empirical(points),
    )
