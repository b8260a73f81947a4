"""Distances between laws and samples, with standard errors; rates with confidence intervals."""

from __future__ import annotations

from sfumato.metrics.endpoint import endpoint_error
from sfumato.metrics.energy import energy_distance
from sfumato.metrics.estimate import Estimate
from sfumato.metrics.frechet import FrechetEstimate, frechet_distance
from sfumato.metrics.gaussian import gaussian_w2
from sfumato.metrics.mmd import mmd
from sfumato.metrics.precision_recall import PrecisionRecall, precision_recall
from sfumato.metrics.rate import Rate, fit_rate
from sfumato.metrics.sliced import sliced_wasserstein, wasserstein_1d

__all__ = [
    "Estimate",
    "FrechetEstimate",
    "PrecisionRecall",
    "Rate",
    "endpoint_error",
    "energy_distance",
    "fit_rate",
    "frechet_distance",
    "gaussian_w2",
    "mmd",
    "precision_recall",
    "sliced_wasserstein",
    "wasserstein_1d",
]
