"""A world without symmetry: no mean of zero, no axis like another, unlike weights, events of two by three."""

from __future__ import annotations

import torch

from sfumato.exact import Gaussian, GaussianMixture, SpectralCovariance
from sfumato.noise import VariancePreserving

VP = VariancePreserving()


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


def wave(*shape, size=1.3, shift=0.2):
    """Numbers without symmetry."""
    count = int(torch.tensor(shape).prod())
    return size * torch.sin(1.7 * torch.arange(count, dtype=torch.float64) + 0.4).reshape(shape) + shift


# events (2, 3), three components of unlike covariances, no mean of zero
MIX = GaussianMixture(
    [0.5, 0.3, 0.2],
    wave(3, 2, 3, size=0.9, shift=0.3),
    [
        SpectralCovariance.diagonal(wave(6, size=0.15, shift=0.3)),
        SpectralCovariance.isotropic(6, 0.2),
        SpectralCovariance.isotropic(6, 0.1),
    ],
    (2, 3),
)
THIN = Gaussian(wave(6, size=0.5), SpectralCovariance.low_rank(torch.eye(6, dtype=torch.float64)[:, [4, 1]], f64(1.5, 0.4), 0.07), (2, 3))
FULL = Gaussian(wave(6, size=0.6), SpectralCovariance.diagonal(f64(1.5, 0.4, 0.9, 0.2, 0.6, 0.1)), (2, 3))
X = wave(3, 2, 3)


def project(values, start=0):
    """`sum_k cos(1 + k) v_k`, numbered from `start`."""
    flat = torch.as_tensor(values, dtype=torch.float64).detach().flatten()
    return float((flat * torch.cos(1.0 + start + torch.arange(len(flat), dtype=torch.float64))).sum())
