"""Learned and wrapped denoisers: preconditioning, small networks, somebody's checkpoint."""

from __future__ import annotations

from sfumato.denoise.amended import Amended
from sfumato.denoise.calibrated import Calibrated, MeanError
from sfumato.denoise.jacobian import LocalCovariance, jacobian_products, local_covariance
from sfumato.denoise.networks.conv import ConvNet
from sfumato.denoise.networks.diffusers_network import DiffusersUNet
from sfumato.denoise.networks.dynamical_system import ContinuousUNet, DynamicBlock
from sfumato.denoise.networks.edm_unet import EDMForm, EDMUNet
from sfumato.denoise.networks.eigen_coordinates import EigenCoordinates
from sfumato.denoise.networks.flow_operator import FlowOperator, TimeConvolution
from sfumato.denoise.networks.mlp import ResidualMLP
from sfumato.denoise.networks.network import Network
from sfumato.denoise.networks.networks import NETWORKS, network_from_config
from sfumato.denoise.networks.quantised import QuantisedLayer, Quantiser, quantise
from sfumato.denoise.networks.soft_mixture import FeatureMixture, SoftKernel
from sfumato.denoise.networks.state_space import StateSpaceLayer, StateSpaceNet
from sfumato.denoise.networks.time_bias import TimeBias
from sfumato.denoise.networks.two_headed import TwoHeaded
from sfumato.denoise.scaled.gaussian_scalings import GaussianScalings
from sfumato.denoise.scaled.momentum_preconditioned import MomentumPreconditioned
from sfumato.denoise.scaled.preconditioned import Preconditioned
from sfumato.denoise.scaled.scalings import Isotropic, Scalings
from sfumato.denoise.scaled.state_denoiser import Predict, StateBelief, StateDenoiser
from sfumato.denoise.scaled.wrap import Wrapped
from sfumato.denoise.shared_times import SharedBelief, SharedLabels, SharedTimes, TimeCells
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
