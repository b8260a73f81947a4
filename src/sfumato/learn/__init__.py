"""Training: losses, fitting, checkpoints."""

from __future__ import annotations

from sfumato.learn.closed.features import Fourier, GaussianBumps, RandomFourier
from sfumato.learn.closed.kernel_denoiser import KernelFit, SpaceTimeKernel
from sfumato.learn.closed.linear_denoiser import fit_linear, sandwich
from sfumato.learn.closed.linear_score import LinearScore, fit_linear_score
from sfumato.learn.closed.triples import Regression
from sfumato.learn.forward.encoded_forward import EncodedForward, MonotoneLogSNR, SoftmaxDecoder, encoded_bound, sample_encoded
from sfumato.learn.forward.fit_process import LearnedProcess, fit_process, score_of
from sfumato.learn.forward.forward_flow import AffineForward, CouplingForward, ForwardFlow, NeuralAffine, ScalarForward
from sfumato.learn.forward.learned_coupling import CouplingCosts, GaussianEncoder, coupling_costs, fit_coupling
from sfumato.learn.forward.learned_flexible import LearnedFlexible
from sfumato.learn.forward.learned_mdm import LearnedMDM
from sfumato.learn.forward.neural_flow_forward import (
    KnotVolatility,
    NetVolatility,
    SkipPredictor,
    conditional_curvature,
    conditional_path,
    flow_bound,
    flow_loss,
    generate_flow,
    generative_curvature,
)
from sfumato.learn.forward.neural_forward import BlendTransform, NeuralForward, ResidualTransform, neural_bound, sample_neural
from sfumato.learn.forward.quantised_conditions import CodedVelocity, CodeHistogram, Codes, fit_coded
from sfumato.learn.losses.acceleration_loss import AcceleratedBelief, acceleration_loss
from sfumato.learn.losses.bounded_weight import BoundedWeight, growing_bound
from sfumato.learn.losses.fokker_planck_residual import log_residual
from sfumato.learn.losses.hybrid_loss import HybridLoss, LossAwareSteps, chain_bound, fit_shares, step_bound
from sfumato.learn.losses.likelihood_times import AdaptiveTimes, DensityTimes, EvenTimes, LikelihoodTimes, LikelihoodWeight
from sfumato.learn.losses.local_matching import PathCache, implicit_bound, likelihood_loss, local_loss, longest_increment, simulate_paths
from sfumato.learn.losses.loss import CleanLoss, DenoisingLoss, Examples
from sfumato.learn.losses.path_bound_loss import path_bound_loss
from sfumato.learn.losses.second_order import SecondOrderLoss
from sfumato.learn.losses.state_loss import LevelWeight, StateExamples, StateLoss
from sfumato.learn.losses.time_smoothness import SmoothTimeLoss
from sfumato.learn.losses.times import LogNormalRatio, Times, UniformLogSNR, UniformTime
from sfumato.learn.losses.variational_bound import LevelDecoder, VariationalBound, continuous_bound, discrete_bound
from sfumato.learn.losses.weights import EDMWeight, MinSNRWeight, SNRWeight, Uniform, Weight
from sfumato.learn.repairs.calibration import load_mean_error, mean_error, save_mean_error
from sfumato.learn.repairs.noise_level import NoiseLevelClassifier, fit_noise_levels
from sfumato.learn.repairs.quantisation_inputs import leaning_times, run_inputs
from sfumato.learn.students.adversary import Adversary
from sfumato.learn.students.consistency_distillation import Teacher, distil_consistency, fixed_point
from sfumato.learn.students.distribution_matching import DistributionMatching, token_loss
from sfumato.learn.students.mmd_tuning import tune_by_mmd
from sfumato.learn.students.restorer import NetworkRestorer, RidgeRestorer, fit_restorer
from sfumato.learn.students.restoring_generator import RestoringGenerator, fit_restoring_generator
from sfumato.learn.students.scale_wise import distil_scale_wise
from sfumato.learn.students.soft_mixture_fit import fit_soft_mixture, soft_kernel_loss
from sfumato.learn.students.start_model import fit_start, sample_from
from sfumato.learn.students.trajectory_regression import fit_operator
from sfumato.learn.training.average import Average
from sfumato.learn.training.callbacks import Recorder, log_steps
from sfumato.learn.training.checkpoint import about_model, load_model, save_model
from sfumato.learn.training.descent import descend
from sfumato.learn.training.fit import FitResult, fit
from sfumato.learn.training.presets import default_denoiser, default_loss, default_settings
from sfumato.learn.training.settings import FitSettings

__all__ = [
    "AcceleratedBelief",
    "AdaptiveTimes",
    "Adversary",
    "AffineForward",
    "Average",
    "BlendTransform",
    "BoundedWeight",
    "CleanLoss",
    "CodeHistogram",
    "CodedVelocity",
    "Codes",
    "CouplingCosts",
    "CouplingForward",
    "DenoisingLoss",
    "DensityTimes",
    "DistributionMatching",
    "EDMWeight",
    "EncodedForward",
    "EvenTimes",
    "Examples",
    "FitResult",
    "FitSettings",
    "ForwardFlow",
    "Fourier",
    "GaussianBumps",
    "GaussianEncoder",
    "HybridLoss",
    "KernelFit",
    "KnotVolatility",
    "LearnedFlexible",
    "LearnedMDM",
    "LearnedProcess",
    "LevelDecoder",
    "LevelWeight",
    "LikelihoodTimes",
    "LikelihoodWeight",
    "LinearScore",
    "LogNormalRatio",
    "LossAwareSteps",
    "MinSNRWeight",
    "MonotoneLogSNR",
    "NetVolatility",
    "NetworkRestorer",
    "NeuralAffine",
    "NeuralForward",
    "NoiseLevelClassifier",
    "PathCache",
    "RandomFourier",
    "Recorder",
    "Regression",
    "ResidualTransform",
    "RestoringGenerator",
    "RidgeRestorer",
    "SNRWeight",
    "ScalarForward",
    "SecondOrderLoss",
    "SkipPredictor",
    "SmoothTimeLoss",
    "SoftmaxDecoder",
    "SpaceTimeKernel",
    "StateExamples",
    "StateLoss",
    "Teacher",
    "Times",
    "Uniform",
    "UniformLogSNR",
    "UniformTime",
    "VariationalBound",
    "Weight",
    "about_model",
    "acceleration_loss",
    "chain_bound",
    "conditional_curvature",
    "conditional_path",
    "continuous_bound",
    "coupling_costs",
    "default_denoiser",
    "default_loss",
    "default_settings",
    "descend",
    "discrete_bound",
    "distil_consistency",
    "distil_scale_wise",
    "encoded_bound",
    "fit",
    "fit_coded",
    "fit_coupling",
    "fit_linear",
    "fit_linear_score",
    "fit_noise_levels",
    "fit_operator",
    "fit_process",
    "fit_restorer",
    "fit_restoring_generator",
    "fit_shares",
    "fit_soft_mixture",
    "fit_start",
    "fixed_point",
    "flow_bound",
    "flow_loss",
    "generate_flow",
    "generative_curvature",
    "growing_bound",
    "implicit_bound",
    "leaning_times",
    "likelihood_loss",
    "load_mean_error",
    "load_model",
    "local_loss",
    "log_residual",
    "log_steps",
    "longest_increment",
    "mean_error",
    "neural_bound",
    "path_bound_loss",
    "run_inputs",
    "sample_encoded",
    "sample_from",
    "sample_neural",
    "sandwich",
    "save_mean_error",
    "save_model",
    "score_of",
    "simulate_paths",
    "soft_kernel_loss",
    "step_bound",
    "token_loss",
    "tune_by_mmd",
]
