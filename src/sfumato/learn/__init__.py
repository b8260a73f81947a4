"""Training: losses, fitting, checkpoints."""

from __future__ import annotations

from sfumato.learn.average import Average
from sfumato.learn.callbacks import Recorder, log_steps
from sfumato.learn.checkpoint import about_model, load_model, save_model
from sfumato.learn.features import Fourier, GaussianBumps, RandomFourier
from sfumato.learn.fit import FitResult, fit
from sfumato.learn.kernel_denoiser import KernelFit, SpaceTimeKernel
from sfumato.learn.linear_denoiser import fit_linear, sandwich
from sfumato.learn.loss import CleanLoss, DenoisingLoss, Examples
from sfumato.learn.presets import default_denoiser, default_loss, default_settings
from sfumato.learn.settings import FitSettings
from sfumato.learn.times import LogNormalRatio, Times, UniformLogSNR, UniformTime
from sfumato.learn.triples import Regression
from sfumato.learn.weights import EDMWeight, MinSNRWeight, SNRWeight, Uniform, Weight

__all__ = [
    "Average",
    "CleanLoss",
    "DenoisingLoss",
    "EDMWeight",
    "Examples",
    "FitResult",
    "FitSettings",
    "Fourier",
    "GaussianBumps",
    "KernelFit",
    "LogNormalRatio",
    "MinSNRWeight",
    "RandomFourier",
    "Recorder",
    "Regression",
    "SNRWeight",
    "SpaceTimeKernel",
    "Times",
    "Uniform",
    "UniformLogSNR",
    "UniformTime",
    "Weight",
    "about_model",
    "default_denoiser",
    "default_loss",
    "default_settings",
    "fit",
    "fit_linear",
    "load_model",
    "log_steps",
    "sandwich",
    "save_model",
]
