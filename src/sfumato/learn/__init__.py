"""Training: losses, fitting, checkpoints."""

from __future__ import annotations

from sfumato.learn.average import Average
from sfumato.learn.callbacks import Recorder, log_steps
from sfumato.learn.checkpoint import about_model, load_model, save_model
from sfumato.learn.fit import FitResult, fit
from sfumato.learn.loss import DenoisingLoss, Examples
from sfumato.learn.presets import default_denoiser, default_loss, default_settings
from sfumato.learn.settings import FitSettings
from sfumato.learn.times import LogNormalRatio, Times, UniformLogSNR, UniformTime
from sfumato.learn.weights import EDMWeight, MinSNRWeight, SNRWeight, Uniform, Weight

__all__ = [
    "Average",
    "DenoisingLoss",
    "EDMWeight",
    "Examples",
    "FitResult",
    "FitSettings",
    "LogNormalRatio",
    "MinSNRWeight",
    "Recorder",
    "SNRWeight",
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
    "load_model",
    "log_steps",
    "save_model",
]
