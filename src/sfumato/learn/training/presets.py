"""What to train when nothing is said: measured choices for small data on a small machine.

On the bundled digits (1500 of 8x8, scaled to [-1, 1]; two cores, under a minute) the squared error of the held-out posterior mean, summed
over the pixels, at `sigma/alpha` = 0.1, 0.2, 0.5, 1, 2; the best linear denoiser is the start:

    best linear denoiser                                       0.46   1.44   4.93   9.61   14.57
    perceptron, isotropic scalings, 1200 steps                 0.39   1.08   3.37   7.42   13.85
    perceptron, Gaussian scalings, 1200 steps                  0.38   1.06   3.20   7.25   13.84
    convolutions, Gaussian scalings, 600 steps of 64           0.39   1.13   3.78   8.34   14.23
    convolutions, isotropic scalings, 1200 steps of 64         0.29   0.85   3.05   7.51   14.08

The perceptron is the default for events of up to 1024 numbers since it answers 20 times as fast as the convolutions. Whitening takes from
convolutions the smoothness that they live on, hence their isotropic scalings.
"""

from __future__ import annotations

import math

from torch import Tensor

from sfumato.data import Batches, Dataset
from sfumato.denoise import ConvNet, GaussianScalings, Isotropic, Preconditioned, ResidualMLP
from sfumato.exact import Gaussian, fit_gaussian
from sfumato.learn.losses.loss import DenoisingLoss
from sfumato.learn.losses.times import LogNormalRatio
from sfumato.learn.losses.weights import EDMWeight
from sfumato.learn.training.settings import FitSettings
from sfumato.noise import ScalarProcess, VariancePreserving

_PERCEPTRON = 1024
"""Most numbers per event for which the perceptron is taken."""
_FLOOR = 3e-3
"""Least variance of a mode, as a share of the mean variance."""


def default_denoiser(dataset: Dataset, process: ScalarProcess | None = None, *, conditional: bool = False, seed: int = 0) -> Preconditioned:
    """An untrained denoiser for a data set: it starts as the best linear denoiser of the training part (perceptron) or near it.

    Arguments:
        dataset: sets the event shape, the scalings and the number of classes.
        process: default: `VariancePreserving()`, whose table of betas is that of most pipelines.
        conditional: whether the network takes the data's labels as its condition.
        seed: of the initial weights.
    """
    process = process or VariancePreserving()
    shape, classes = dataset.event_shape, dataset.classes if conditional else None
    whole = _small(dataset) or not dataset.is_image
    # isotropic scalings ask for mean and trace alone, which one pass gives
    law = fit_gaussian(dataset.batches(1024), None if whole else 0)
    if whole:
        known = GaussianScalings(law, _FLOOR * _mean_variance(law))
        return Preconditioned(ResidualMLP(shape, classes=classes, seed=seed), process, known)
    halvings = min(2, *(_twos(n) for n in shape[1:]))
    scalings = Isotropic(_mean_variance(law) ** 0.5, float(law.mean.mean()))
    return Preconditioned(ConvNet(shape, 32, halvings, classes, seed), process, scalings)


def default_loss(data: Dataset | Tensor) -> DenoisingLoss:
    """Karras et al. 2022's weight for the data's own standard deviation `s`, and noise levels about it: `log k ~ N(log s, 1.2^2)`."""
    law = fit_gaussian(data.batches(1024) if isinstance(data, Dataset) else Batches(data, 1024), 0)
    sigma_data = _mean_variance(law) ** 0.5
    return DenoisingLoss(EDMWeight(sigma_data), LogNormalRatio(math.log(sigma_data), 1.2))


def default_settings(dataset: Dataset, *, seed: int = 0, steps: int | None = None) -> FitSettings:
    """Steps (if not given), batch and rate for `default_denoiser`."""
    small = _small(dataset) or not dataset.is_image
    steps = (1600 if small else 8000) if steps is None else steps
    return FitSettings(steps, *((256, 4e-3) if small else (64, 2e-3)), warmup=min(100, steps // 10), seed=seed)


def _small(dataset: Dataset) -> bool:
    return math.prod(dataset.event_shape) <= _PERCEPTRON


def _mean_variance(law: Gaussian) -> float:
    return float(law.covariance.trace()) / law.covariance.dim


def _twos(n: int) -> int:
    """How often `n` can be halved."""
    return (n & -n).bit_length() - 1
