"""Learned and wrapped denoisers: preconditioning, small networks, somebody's checkpoint."""

from __future__ import annotations

from sfumato.denoise.conv import ConvNet
from sfumato.denoise.diffusers_network import DiffusersUNet
from sfumato.denoise.eigen_coordinates import EigenCoordinates
from sfumato.denoise.gaussian_scalings import GaussianScalings
from sfumato.denoise.jacobian import LocalCovariance, jacobian_products, local_covariance
from sfumato.denoise.mlp import ResidualMLP
from sfumato.denoise.network import Network
from sfumato.denoise.networks import NETWORKS, network_from_config
from sfumato.denoise.preconditioned import Preconditioned
from sfumato.denoise.scalings import Isotropic, Scalings
from sfumato.denoise.wrap import Wrapped
from sfumato.denoiser import Denoiser, View, from_data, to_data

__all__ = [
    "NETWORKS",
    "ConvNet",
    "Denoiser",
    "DiffusersUNet",
    "EigenCoordinates",
    "GaussianScalings",
    "Isotropic",
    "LocalCovariance",
    "Network",
    "Preconditioned",
    "ResidualMLP",
    "Scalings",
    "View",
    "Wrapped",
    "from_data",
    "jacobian_products",
    "local_covariance",
    "network_from_config",
    "to_data",
]
