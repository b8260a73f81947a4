from __future__ import annotations

import pytest
import torch

from sfumato.denoise import GaussianScalings, Preconditioned, ResidualMLP
from sfumato.denoise.networks.eigen_coordinates import EigenCoordinates
from sfumato.errors import ArgumentError
from sfumato.exact.spectral.basis import CosineBasis, IdentityBasis
from sfumato.noise import EDM
from sfumato.seeds import noise


def spoken(seed=0):
    """A network that says something, unlike one that starts at zero."""
    network = ResidualMLP((3, 4), 16, 1, seed=seed)
    with torch.no_grad():
        network.last.weight.copy_(torch.randn(12, 16, generator=torch.Generator().manual_seed(seed)))
    return network


def test_it_is_the_network_between_two_rotations(full_gaussian):
    network, basis = spoken(), full_gaussian.covariance.basis
    x, label = noise(0, 5, (3, 4)).draw(0), torch.zeros(5)
    U = basis.columns().to(torch.float32)
    expected = network((x.flatten(1) @ U).reshape(x.shape), label).flatten(1) @ U.T
    torch.testing.assert_close(EigenCoordinates(network, basis)(x, label).flatten(1), expected)
    torch.testing.assert_close(EigenCoordinates(network, IdentityBasis(12))(x, label), network(x, label))
    cosine = CosineBasis((3, 4))
    turned = EigenCoordinates(network, cosine)(x, label)
    inside = cosine.project(x.flatten(1).double()).float().reshape(x.shape)
    torch.testing.assert_close(turned.flatten(1), cosine.lift(network(inside, label).flatten(1).double()).float())


def test_behind_gaussian_scalings_it_starts_as_the_gaussians_denoiser(full_gaussian):
    process = EDM()
    network = EigenCoordinates(ResidualMLP((3, 4), 16, 1), full_gaussian.covariance.basis)
    denoiser = Preconditioned(network, process, GaussianScalings(full_gaussian))
    x = noise(0, 5, (3, 4)).draw(0)
    torch.testing.assert_close(denoiser.denoise(x, 0.01), full_gaussian.posterior_mean(x, process, 0.01), rtol=1e-4, atol=1e-5)
    assert denoiser.event_shape == (3, 4)


def test_a_basis_must_span_the_events(full_gaussian, thin_gaussian):
    for basis in (thin_gaussian.covariance.basis, IdentityBasis(11)):
        with pytest.raises(ArgumentError, match="basis"):
            EigenCoordinates(spoken(), basis)
