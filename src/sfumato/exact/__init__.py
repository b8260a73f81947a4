"""Laws with closed-form answers: their exact denoisers, flows and posteriors; statistics and mixtures fitted to streams."""

from __future__ import annotations

from sfumato.exact.blend import Blend, Sides
from sfumato.exact.bridge import bridge, linear_transition, noise_bridge
from sfumato.exact.coupled_gaussian import CoupledGaussian
from sfumato.exact.covariance import SpectralCovariance
from sfumato.exact.draws import law_sample, posterior_sample
from sfumato.exact.empirical import Empirical
from sfumato.exact.far_field import Cumulants, FarField, cumulants, far_field
from sfumato.exact.filter_learning import LocalFilter, fourier_variances
from sfumato.exact.first_passage import DriftDiffusion
from sfumato.exact.flow import AffineFlow
from sfumato.exact.fokker_planck import Line, LineDensity, fokker_planck
from sfumato.exact.gaussian import Gaussian
from sfumato.exact.guided_flow import DenseFlow, guided_flow
from sfumato.exact.kinetic_optimal import Separation, data_separation, separation_of
from sfumato.exact.ladder import ExpandedGaussian, NearestPoint, TiltedPoints, ladder
from sfumato.exact.law import ExactDenoiser, Law
from sfumato.exact.learning_times import LearningTimes, learning_times
from sfumato.exact.linear_learning import LinearLearner, OneLayer, TwoLayer, affine_weights
from sfumato.exact.mixture import GaussianMixture
from sfumato.exact.mixture_fit import fit_mixture
from sfumato.exact.prior_gap import prior_gap
from sfumato.exact.proxy import posterior_covariance, posterior_variance, proxy_covariance, proxy_variance
from sfumato.exact.push import PushedDenoiser, push
from sfumato.exact.reverse_kernel import ReverseKernel, gaussian_gap, gaussian_gap_1d, reverse_kernel
from sfumato.exact.reversible_line import ReversibleLine
from sfumato.exact.ring import Ring, RingDenoiser
from sfumato.exact.statistics import Moments, fit_gaussian

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
