"""Learned and wrapped denoisers: preconditioning, small networks, somebody's checkpoint."""

from __future__ import annotations

from sfumato.denoise.amended import Amended
from sfumato.denoise.calibrated import Calibrated, MeanError
from sfumato.denoise.conv import ConvNet
from sfumato.denoise.diffusers_network import DiffusersUNet
from sfumato.denoise.dynamical_system import ContinuousUNet, DynamicBlock
from sfumato.denoise.edm_unet import EDMForm, EDMUNet
from sfumato.denoise.eigen_coordinates import EigenCoordinates
from sfumato.denoise.flow_operator import FlowOperator, TimeConvolution
from sfumato.denoise.gaussian_scalings import GaussianScalings
from sfumato.denoise.jacobian import LocalCovariance, jacobian_products, local_covariance
from sfumato.denoise.mlp import ResidualMLP
from sfumato.denoise.momentum_preconditioned import MomentumPreconditioned
from sfumato.denoise.network import Network
from sfumato.denoise.networks import NETWORKS, network_from_config
from sfumato.denoise.preconditioned import Preconditioned
from sfumato.denoise.quantised import QuantisedLayer, Quantiser, quantise
from sfumato.denoise.scalings import Isotropic, Scalings
from sfumato.denoise.shared_times import SharedBelief, SharedLabels, SharedTimes, TimeCells
from sfumato.denoise.soft_mixture import FeatureMixture, SoftKernel
from sfumato.denoise.state_denoiser import Predict, StateBelief, StateDenoiser
from sfumato.denoise.state_space import StateSpaceLayer, StateSpaceNet
from sfumato.denoise.time_bias import TimeBias
from sfumato.denoise.two_headed import TwoHeaded
from sfumato.denoise.wrap import Wrapped
from sfumato.denoiser import Denoiser, View, from_data, to_data

__all__ = [
    "NETWORKS",
    "Amended",
    "Calibrated",
    "ContinuousUNet",
    "ConvNet",
    "Denoiser",
    "DiffusersUNet",
    "DynamicBlock",
    "EDMForm",
    "EDMUNet",
    "EigenCoordinates",
    "FeatureMixture",
    "FlowOperator",
    "GaussianScalings",
    "Isotropic",
    "LocalCovariance",
    "MeanError",
    "MomentumPreconditioned",
    "Network",
    "Preconditioned",
    "Predict",
    "QuantisedLayer",
    "Quantiser",
    "ResidualMLP",
    "Scalings",
    "SharedBelief",
    "SharedLabels",
    "SharedTimes",
    "SoftKernel",
    "StateBelief",
    "StateDenoiser",
    "StateSpaceLayer",
    "StateSpaceNet",
    "TimeBias",
    "TimeCells",
    "TimeConvolution",
    "TwoHeaded",
    "View",
    "Wrapped",
    "from_data",
    "jacobian_products",
    "local_covariance",
    "network_from_config",
    "quantise",
    "to_data",
]
