"""Training: losses, fitting, checkpoints."""

from __future__ import annotations

from sfumato.learn.adversary import Adversary
from sfumato.learn.average import Average
from sfumato.learn.calibration import load_mean_error, mean_error, save_mean_error
from sfumato.learn.callbacks import Recorder, log_steps
from sfumato.learn.checkpoint import about_model, load_model, save_model
from sfumato.learn.consistency_distillation import Teacher, distil_consistency, fixed_point
from sfumato.learn.descent import descend
from sfumato.learn.distribution_matching import DistributionMatching, token_loss
from sfumato.learn.features import Fourier, GaussianBumps, RandomFourier
from sfumato.learn.fit import FitResult, fit
from sfumato.learn.fokker_planck_residual import log_residual
from sfumato.learn.hybrid_loss import HybridLoss, LossAwareSteps, chain_bound, fit_shares, step_bound
from sfumato.learn.kernel_denoiser import KernelFit, SpaceTimeKernel
from sfumato.learn.learned_coupling import CouplingCosts, GaussianEncoder, coupling_costs, fit_coupling
from sfumato.learn.learned_mdm import LearnedMDM
from sfumato.learn.likelihood_times import AdaptiveTimes, DensityTimes, EvenTimes, LikelihoodTimes, LikelihoodWeight
from sfumato.learn.linear_denoiser import fit_linear, sandwich
from sfumato.learn.linear_score import LinearScore, fit_linear_score
from sfumato.learn.loss import CleanLoss, DenoisingLoss, Examples
from sfumato.learn.mmd_tuning import tune_by_mmd
from sfumato.learn.noise_level import NoiseLevelClassifier, fit_noise_levels
from sfumato.learn.path_loss import path_loss
from sfumato.learn.presets import default_denoiser, default_loss, default_settings
from sfumato.learn.quantisation_inputs import leaning_times, run_inputs
from sfumato.learn.quantised_conditions import CodedVelocity, CodeHistogram, Codes, fit_coded
from sfumato.learn.restorer import NetworkRestorer, RidgeRestorer, fit_restorer
from sfumato.learn.restoring_generator import RestoringGenerator, fit_restoring_generator
from sfumato.learn.scale_wise import distil_scale_wise
from sfumato.learn.second_order import SecondOrderLoss
from sfumato.learn.settings import FitSettings
from sfumato.learn.soft_mixture_fit import fit_soft_mixture, soft_kernel_loss
from sfumato.learn.start_model import fit_start, sample_from
from sfumato.learn.time_smoothness import SmoothTimeLoss
from sfumato.learn.times import LogNormalRatio, Times, UniformLogSNR, UniformTime
from sfumato.learn.trajectory_regression import fit_operator
from sfumato.learn.triples import Regression
from sfumato.learn.variational_bound import LevelDecoder, VariationalBound, continuous_bound, discrete_bound
from sfumato.learn.weights import EDMWeight, MinSNRWeight, SNRWeight, Uniform, Weight

__all__ = [
    "AdaptiveTimes",
    "Adversary",
    "Average",
    "CleanLoss",
    "CodeHistogram",
    "CodedVelocity",
    "Codes",
    "CouplingCosts",
    "DenoisingLoss",
    "DensityTimes",
    "DistributionMatching",
    "EDMWeight",
    "EvenTimes",
    "Examples",
    "FitResult",
    "FitSettings",
    "Fourier",
    "GaussianBumps",
    "GaussianEncoder",
    "HybridLoss",
    "KernelFit",
    "LearnedMDM",
    "LevelDecoder",
    "LikelihoodTimes",
    "LikelihoodWeight",
    "LinearScore",
    "LogNormalRatio",
    "LossAwareSteps",
    "MinSNRWeight",
    "NetworkRestorer",
    "NoiseLevelClassifier",
    "RandomFourier",
    "Recorder",
    "Regression",
    "RestoringGenerator",
    "RidgeRestorer",
    "SNRWeight",
    "SecondOrderLoss",
    "SmoothTimeLoss",
    "SpaceTimeKernel",
    "Teacher",
    "Times",
    "Uniform",
    "UniformLogSNR",
    "UniformTime",
    "VariationalBound",
    "Weight",
    "about_model",
    "chain_bound",
    "continuous_bound",
    "coupling_costs",
    "default_denoiser",
    "default_loss",
    "default_settings",
    "descend",
    "discrete_bound",
    "distil_consistency",
    "distil_scale_wise",
    "fit",
    "fit_coded",
    "fit_coupling",
    "fit_linear",
    "fit_linear_score",
    "fit_noise_levels",
    "fit_operator",
    "fit_restorer",
    "fit_restoring_generator",
    "fit_shares",
    "fit_soft_mixture",
    "fit_start",
    "fixed_point",
    "leaning_times",
    "load_mean_error",
    "load_model",
    "log_residual",
    "log_steps",
    "mean_error",
    "path_loss",
    "run_inputs",
    "sample_from",
    "sandwich",
    "save_mean_error",
    "save_model",
    "soft_kernel_loss",
    "step_bound",
    "token_loss",
    "tune_by_mmd",
]
