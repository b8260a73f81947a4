"""Laws with closed-form answers: their exact denoisers, flows and posteriors; statistics and mixtures fitted to streams."""

from __future__ import annotations

from sfumato.exact.covariance import SpectralCovariance
from sfumato.exact.empirical import Empirical
from sfumato.exact.flow import AffineFlow
from sfumato.exact.gaussian import Gaussian
from sfumato.exact.law import ExactDenoiser, Law
from sfumato.exact.mixture import GaussianMixture
from sfumato.exact.mixture_fit import fit_mixture
from sfumato.exact.statistics import Moments, fit_gaussian

__all__ = [
    "AffineFlow",
    "Empirical",
    "ExactDenoiser",
    "Gaussian",
    "GaussianMixture",
    "Law",
    "Moments",
    "SpectralCovariance",
    "fit_gaussian",
    "fit_mixture",
]
