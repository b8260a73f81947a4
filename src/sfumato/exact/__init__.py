"""Laws with closed-form answers: their exact denoisers, flows and posteriors; statistics and mixtures fitted to streams."""

from __future__ import annotations

from sfumato.exact.diffusions.bridge import bridge, linear_transition, noise_bridge
from sfumato.exact.diffusions.first_passage import DriftDiffusion
from sfumato.exact.diffusions.fokker_planck import Line, LineDensity, fokker_planck
from sfumato.exact.diffusions.reversible_line import ReversibleLine
from sfumato.exact.draws import law_sample, posterior_sample
from sfumato.exact.fitting.mixture_fit import fit_mixture
from sfumato.exact.fitting.statistics import Moments, fit_gaussian
from sfumato.exact.laws.blend import Blend, Sides
from sfumato.exact.laws.coupled_gaussian import CoupledGaussian
from sfumato.exact.laws.empirical import Empirical
from sfumato.exact.laws.gaussian import Gaussian
from sfumato.exact.laws.law import ExactDenoiser, Law
from sfumato.exact.laws.mixture import GaussianMixture
from sfumato.exact.laws.push import PushedDenoiser, push
from sfumato.exact.laws.reverse_kernel import ReverseKernel, gaussian_gap, gaussian_gap_1d, reverse_kernel
from sfumato.exact.laws.ring import Ring, RingDenoiser
from sfumato.exact.learning.far_field import Cumulants, FarField, cumulants, far_field
from sfumato.exact.learning.filter_learning import LocalFilter, fourier_variances
from sfumato.exact.learning.ladder import ExpandedGaussian, NearestPoint, TiltedPoints, ladder
from sfumato.exact.learning.learning_times import LearningTimes, learning_times
from sfumato.exact.learning.linear_learning import LinearLearner, OneLayer, TwoLayer, affine_weights
from sfumato.exact.learning.proxy import posterior_covariance, posterior_variance, proxy_covariance, proxy_variance
from sfumato.exact.spectral.covariance import SpectralCovariance
from sfumato.exact.spectral.flow import AffineFlow
from sfumato.exact.spectral.guided_flow import DenseFlow, guided_flow
from sfumato.exact.spectral.kinetic_optimal import Separation, data_separation, separation_of
from sfumato.exact.spectral.prior_gap import prior_gap

__all__ = [
    "AffineFlow",
    "Blend",
    "CoupledGaussian",
    "Cumulants",
    "DenseFlow",
    "DriftDiffusion",
    "Empirical",
    "ExactDenoiser",
    "ExpandedGaussian",
    "FarField",
    "Gaussian",
    "GaussianMixture",
    "Law",
    "LearningTimes",
    "Line",
    "LineDensity",
    "LinearLearner",
    "LocalFilter",
    "Moments",
    "NearestPoint",
    "OneLayer",
    "PushedDenoiser",
    "ReverseKernel",
    "ReversibleLine",
    "Ring",
    "RingDenoiser",
    "Separation",
    "Sides",
    "SpectralCovariance",
    "TiltedPoints",
    "TwoLayer",
    "affine_weights",
    "bridge",
    "cumulants",
    "data_separation",
    "far_field",
    "fit_gaussian",
    "fit_mixture",
    "fokker_planck",
    "fourier_variances",
    "gaussian_gap",
    "gaussian_gap_1d",
    "guided_flow",
    "ladder",
    "law_sample",
    "learning_times",
    "linear_transition",
    "noise_bridge",
    "posterior_covariance",
    "posterior_sample",
    "posterior_variance",
    "prior_gap",
    "proxy_covariance",
    "proxy_variance",
    "push",
    "reverse_kernel",
    "separation_of",
]
