"""The small trained networks that several rows look at; each is trained once a process, on one thread or many with the same settings."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

from sfumato.data import Dataset, digits
from sfumato.denoise import Preconditioned, ResidualMLP
from sfumato.exact import fit_gaussian
from sfumato.learn import Average, DenoisingLoss, EDMWeight, FitSettings, LogNormalRatio, fit
from sfumato.noise import EDM

OnStep = Callable[[int, Preconditioned, Average], None]


def sigma_data(data: Dataset) -> float:
    """The root of the mean variance of the training part."""
    law = fit_gaussian(data.batches(1024))
    return math.sqrt(float(law.covariance.trace()) / law.dim)


def train_digits(
    data: Dataset,
    steps: int = 1600,
    *,
    width: int = 256,
    depth: int = 3,
    seed: int = 0,
    on_step: OnStep | None = None,
    settings: FitSettings | None = None,
) -> Preconditioned:
    """A residual perceptron behind EDM's isotropic scalings, so that nothing but training tells it of the data's Gaussian part.

    `log sigma ~ N(-0.6, 1.2^2)`, Adam from 1e-3 linearly to 0, batches of 256, averaged weights.
    """
    scale = sigma_data(data)
    denoiser = Preconditioned(ResidualMLP(data.event_shape, width, depth, seed=seed), EDM(), scale)
    loss = DenoisingLoss(EDMWeight(scale), LogNormalRatio(-0.6, 1.2))
    fit(denoiser, data, settings or FitSettings(steps, 256, 1e-3, warmup=0, seed=seed), loss, on_step=on_step)
    return denoiser


@functools.cache
def digits_network(images: int | None = None, steps: int = 1600) -> Preconditioned:
    """`train_digits` on the digits' training part, or on its first few images only."""
    data = digits()
    if images is not None:
        data = Dataset(f"{images} digits", data.train[:images], data.test)
    return train_digits(data, steps)
