"""The denoiser's Jacobian: against autograd's dense one, closed forms of Gaussians, the second-order Tweedie formula, and bad input."""

import pytest
import torch

from sfumato.denoise import DiffusersUNet, Preconditioned, ResidualMLP, Wrapped
from sfumato.denoise.jacobian import CEILING, jacobian_products, local_covariance
from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import Empirical, GaussianMixture, SpectralCovariance
from sfumato.noise import EDM, FlowMatching, VariancePreserving

F64 = torch.float64


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def skewed(event, process):
    """A network with a Jacobian that is neither constant nor symmetric."""
    dim = torch.Size(event).numel()
    a, b = draw(dim, dim, seed=1) / dim**0.5, draw(dim, dim, seed=2) / dim**0.5
    return Wrapped(lambda x, time, condition: (torch.tanh(x.flatten(1) @ a.T) @ b.T).reshape(x.shape), process, "data")


@pytest.mark.parametrize("event", [(6,), (1, 2, 3)])
def test_products_are_those_of_autograds_dense_jacobian(event):
    denoiser = skewed(event, EDM())
    x, v = draw(3, *event, seed=3), draw(3, 4, *event, seed=4)
    dense = torch.autograd.functional.jacobian(lambda y: denoiser.denoise(y, 0.1), x)
    dense = torch.stack([dense.reshape(3, 6, 3, 6)[i, :, i] for i in range(3)])
    forward, back = jacobian_products(denoiser, x, 0.1, v)
    torch.testing.assert_close(forward.flatten(2), torch.einsum("bij,bkj->bki", dense, v.flatten(2)), rtol=0, atol=1e-13)
    torch.testing.assert_close(back.flatten(2), torch.einsum("bji,bkj->bki", dense, v.flatten(2)), rtol=0, atol=1e-13)
    full = local_covariance(denoiser, x, 0.1, 6)
    torch.testing.assert_close(full.gains, torch.linalg.eigvalsh((dense + dense.transpose(1, 2)) / 2).flip(1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("process", [EDM(), VariancePreserving(), FlowMatching()], ids=lambda p: p.kind)
@pytest.mark.parametrize("k", [1, 3])
def test_a_gaussians_variances_are_found_under_every_process(full_gaussian, process, k):
    """g = alpha^2 l / (alpha^2 l + sigma^2) solved for l, on (3, 4) events whose variances fall from 3 to 0.003."""
    t = float(process.time_of_ratio(0.7))
    local = local_covariance(full_gaussian.denoiser(process), draw(2, 3, 4), t, k, tolerance=1e-9)
    expected = full_gaussian.covariance.eigenvalues[:k]
    torch.testing.assert_close(local.variances, expected.expand(2, k), rtol=1e-7, atol=0)
    own = full_gaussian.covariance.lift(torch.eye(12, dtype=F64)[:k])
    overlap = (local.directions.flatten(2) * own).sum(2).abs()
    torch.testing.assert_close(overlap, torch.ones(2, k, dtype=F64), rtol=0, atol=1e-7)
    assert bool(local.converged.all())
    assert float(local.asymmetry.max()) == 0


def test_posterior_variances_are_the_second_order_tweedie_formula(g4):
    """Eigenvalues of the mixture's exact posterior covariance, also between modes, where g exceeds 1 and no local variance exists."""
    process = VariancePreserving()
    t = float(process.time_of_ratio(0.4))
    x = torch.tensor([[0.1, 1.0], [0.9, 0.1], [-1.0, 1.2]], dtype=F64)
    local = local_covariance(g4.denoiser(process), x, t, 2)
    exact = torch.linalg.eigvalsh(g4.posterior_covariance(x, process, t)).flip(1)
    torch.testing.assert_close(local.posterior_variances, exact, rtol=0, atol=1e-12)
    assert float(local.gains.max()) > 1
    assert float(local.variances.max()) == pytest.approx(0.4**2 * CEILING / (1 - CEILING))


def test_a_large_krylov_space_converges_before_it_fills_and_says_when_it_does_not():
    """400 dimensions, decaying variances: the leading 3 from a few blocks; some eigenvalue lies within every residual, converged or not."""
    variances = torch.arange(1, 401, dtype=F64) ** -1.0
    law = GaussianMixture(None, torch.zeros(1, 400, dtype=F64), [SpectralCovariance.diagonal(variances)])
    process = EDM()
    expected = variances[:3] / (variances[:3] + 0.25)
    local = local_covariance(law.denoiser(process), draw(2, 400), 0.5 / 80, 3, tolerance=1e-6)
    torch.testing.assert_close(local.gains, expected.expand(2, 3), rtol=0, atol=1e-9)
    assert bool(local.converged.all())
    rough = local_covariance(law.denoiser(process), draw(2, 400), 0.5 / 80, 3, blocks=2, tolerance=1e-6)
    assert not bool(rough.converged.any())
    every = variances / (variances + 0.25)
    assert bool(((rough.gains[..., None] - every).abs().amin(2) <= rough.residuals).all())


def test_a_skew_network_is_seen_as_one_and_an_exact_denoiser_in_other_clothes_is_not(g4):
    process = EDM()
    assert float(local_covariance(skewed((6,), process), draw(2, 6), 0.1, 2).asymmetry.min()) > 0.3
    # under another process the same belief takes the route of both products, and they agree
    other = g4.denoiser(process).under(VariancePreserving())
    assert float(local_covariance(other, draw(2, 2), 0.3, 2).asymmetry.max()) < 1e-12


def test_training_sets_networks_with_attention_and_classes_are_served():
    points = draw(5, 3)
    gains = local_covariance(Empirical(points).denoiser(EDM()), draw(2, 3), 1.0 / 80, 3).gains
    assert bool((gains > -1e-12).all())
    mlp = Preconditioned(ResidualMLP((3,), 8, 1, classes=4), EDM())
    with torch.no_grad():
        mlp.network.last.weight.normal_(generator=torch.Generator().manual_seed(0))
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(1))
    both = local_covariance(mlp, x, 0.01, 2, condition=torch.tensor([0, 3])).gains
    alone = [local_covariance(mlp, x[i : i + 1], 0.01, 2, condition=torch.tensor([c])).gains for i, c in enumerate((0, 3))]
    torch.testing.assert_close(both, torch.cat(alone), rtol=0, atol=1e-5)


def test_attention_has_second_derivatives_here():
    pytest.importorskip("diffusers")
    options = {"block_out_channels": (8, 8), "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "norm_num_groups": 4}
    options |= {"up_block_types": ("AttnUpBlock2D", "UpBlock2D"), "layers_per_block": 1, "attention_head_dim": 4}
    unet = Preconditioned(DiffusersUNet((1, 8, 8), options), EDM()).eval()
    x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    v = torch.randn(1, 1, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    forward, _ = jacobian_products(unet, x, 0.01, v)
    with torch.no_grad():
        ahead, behind = (unet.denoise(x + h * v[:, 0], 0.01) for h in (1e-2, -1e-2))
    torch.testing.assert_close(forward[:, 0], (ahead - behind) / 2e-2, rtol=2e-2, atol=2e-3)


def test_bad_input_is_refused_by_name(g4):
    denoiser = g4.denoiser(EDM())
    with pytest.raises(ShapeError, match="v"):
        jacobian_products(denoiser, draw(2, 2), 0.1, draw(2, 2))
    with pytest.raises(ArgumentError, match="signal and noise"):
        local_covariance(denoiser, draw(2, 2), 0.0, 1)
    with pytest.raises(ArgumentError, match="k, blocks"):
        local_covariance(denoiser, draw(2, 2), 0.1, 3)
