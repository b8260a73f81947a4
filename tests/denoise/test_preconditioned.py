"""The scalings do what they are for: unit variance in and out, finite ends, and the best linear denoiser before any training."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from sfumato.denoise import GaussianScalings, Isotropic, Preconditioned, ResidualMLP
from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.noise import EDM, BetaTable, Cosine, FlowMatching, SubVariancePreserving, Trigonometric, VarianceExploding, VariancePreserving

PROCESSES = [
    VariancePreserving(),
    SubVariancePreserving(),
    Cosine(),
    VarianceExploding(),
    EDM(),
    FlowMatching(shift=3.0),
    Trigonometric(),
    BetaTable.linear(),
]
SHAPE = (1, 2, 3)
INNER = (0.02, 0.3, 0.7, 0.98)


def ids(process):
    return process.kind


class Probe(nn.Module):
    """A network that remembers what it was shown and says what it was told to."""

    def __init__(self, answer=None):
        super().__init__()
        self.answer, self.seen, self.label = answer, None, None

    def forward(self, x, c_noise, condition=None):
        self.seen, self.label = x, c_noise
        return torch.zeros_like(x) if self.answer is None else self.answer


def covariances(dim=6):
    g = torch.Generator().manual_seed(3)
    root = torch.randn(dim, dim, generator=g, dtype=torch.float64)
    dense = root @ root.T / dim
    eigenvalues = torch.logspace(-2, 1, dim, dtype=torch.float64)
    basis = torch.linalg.qr(root).Q
    return {
        "dense": SpectralCovariance.from_dense(dense),
        "low rank and rest": SpectralCovariance.low_rank(basis[:, :2], eigenvalues[-2:], 0.05),
        "cosine": SpectralCovariance.dct(SHAPE, eigenvalues.reshape(SHAPE), channels=True),
        "diagonal": SpectralCovariance.diagonal(eigenvalues),
        "isotropic": SpectralCovariance.isotropic(dim, 0.3),
    }


def gaussian(name):
    mean = torch.linspace(-1, 1, 6, dtype=torch.float64)
    return Gaussian(mean, covariances()[name], SHAPE)


@pytest.mark.parametrize("name", covariances())
@pytest.mark.parametrize("process", PROCESSES, ids=ids)
def test_silent_network_is_the_exact_posterior_mean_of_the_gaussian(process, name):
    law = gaussian(name)
    denoiser = Preconditioned(ResidualMLP(SHAPE, 8, 1).double(), process, GaussianScalings(law))
    x = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for t in (torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0]), 0.4):
        torch.testing.assert_close(denoiser.denoise(x, t), law.posterior_mean(x, process, t), rtol=1e-10, atol=1e-10)


def test_other_eigenvectors_are_not_the_posterior_mean():
    """Negative control: the same eigenvalues on the wrong directions."""
    law, process = gaussian("dense"), VariancePreserving()
    matrix = law.covariance.dense().flip(0).flip(1)
    wrong = Gaussian(law.mean, SpectralCovariance.from_dense(matrix), SHAPE)
    x = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    got = Preconditioned(Probe(), process, GaussianScalings(wrong)).denoise(x, 0.4)
    assert float((got - law.posterior_mean(x, process, 0.4)).abs().max()) > 0.05


def linear_map(function, dim):
    """The matrix and the offset of an affine function of events."""
    zero = function(torch.zeros(1, *SHAPE, dtype=torch.float64)).flatten()
    columns = function(torch.eye(dim, dtype=torch.float64).reshape(dim, *SHAPE)).flatten(1) - zero
    return columns.T, zero


@pytest.mark.parametrize("name", covariances())
@pytest.mark.parametrize("process", PROCESSES, ids=ids)
def test_input_and_target_of_the_network_have_identity_covariance_exactly(process, name):
    """Both are linear in `(x_0, eps)`, so their covariances are matrix products and nothing is sampled."""
    law, eye = gaussian(name), torch.eye(6, dtype=torch.float64)
    for t in INNER:
        probe = Probe()
        denoiser = Preconditioned(probe, process, GaussianScalings(law))
        alpha, sigma, sigma_data = process.alpha(t), process.sigma(t), law.covariance.dense()

        def shown(x, denoiser=denoiser, probe=probe, t=t):
            denoiser.denoise(x, t)
            return probe.seen

        c_in, offset = linear_map(shown, 6)
        total = alpha**2 * sigma_data + sigma**2 * eye
        torch.testing.assert_close(c_in @ total @ c_in.T, eye, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(c_in @ (alpha * law.mean) + offset, torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-9)
        skip, _ = linear_map(lambda x, d=denoiser, t=t: d.denoise(x, t), 6)
        out = torch.stack([_said(process, law, t, row) for row in eye], dim=1)
        # the target is out^-1 (x_0 - mu - skip (alpha (x_0 - mu) + sigma eps))
        left, right = eye - alpha * skip, sigma * skip
        target = torch.linalg.solve(out, left @ sigma_data @ left.T + right @ right.T) @ torch.linalg.inv(out).T
        torch.testing.assert_close(target, eye, rtol=1e-7, atol=1e-7)


def _said(process, law, t, row):
    """What a network's saying `row` adds to the answer."""
    x = torch.zeros(1, *SHAPE, dtype=torch.float64)
    with_row, without = (Preconditioned(Probe(a), process, GaussianScalings(law)).denoise(x, t) for a in (row.reshape(1, *SHAPE), None))
    return (with_row - without).flatten()


@pytest.mark.parametrize("process", [EDM(), VarianceExploding()], ids=ids)
def test_isotropic_scalings_are_those_of_karras_table_1(process):
    s, t = 0.5, torch.tensor([0.001, 0.2, 1.0], dtype=torch.float64)
    answer = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    probe = Probe(answer)
    got = Preconditioned(probe, process, s).denoise(x, t)
    sigma = process.sigma(t).reshape(-1, 1, 1, 1)
    root = (sigma**2 + s**2).sqrt()
    torch.testing.assert_close(got, s**2 / root**2 * x + sigma * s / root * answer, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(probe.seen, x / root, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(probe.label, sigma.flatten().log().clamp(-10, 10) / 4, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scalings", [0.5, Isotropic(2.0, mean=-1.0), GaussianScalings(gaussian("dense"))], ids=["number", "iso", "full"])
@pytest.mark.parametrize("process", PROCESSES, ids=ids)
def test_ends_are_limits(process, scalings):
    """At t = 0 the answer is x / alpha whatever the network says; at t = 1 all is finite, as at nearby times."""
    x = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    probe = Probe(torch.ones_like(x))
    denoiser = Preconditioned(probe, process, scalings)
    torch.testing.assert_close(denoiser.denoise(x, 0.0), x, rtol=1e-12, atol=1e-12)
    assert bool(torch.isfinite(probe.label).all() and torch.isfinite(probe.seen).all())
    end, near = denoiser.denoise(x, 1.0), denoiser.denoise(x, 1 - 1e-9)
    assert bool(torch.isfinite(probe.label).all())
    torch.testing.assert_close(end, near, rtol=1e-5, atol=1e-5)


def test_scalar_and_per_sample_times_agree():
    law = gaussian("low rank and rest")
    denoiser = Preconditioned(Probe(torch.ones(3, *SHAPE, dtype=torch.float64)), Cosine(), GaussianScalings(law))
    x = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    times = torch.tensor([0.2, 0.5, 1.0])
    whole = denoiser.denoise(x, times)
    for i, t in enumerate(times):
        torch.testing.assert_close(whole[i], denoiser.denoise(x, float(t))[i], rtol=1e-12, atol=1e-12)


def test_floor_replaces_only_small_eigenvalues_and_is_asked_for_where_needed():
    law = Gaussian(torch.zeros(3), SpectralCovariance.diagonal(torch.tensor([0.0, 0.5, 2.0])))
    with pytest.raises(ArgumentError, match="floor"):
        GaussianScalings(law)
    assert GaussianScalings(law, floor=0.1).law.covariance.eigenvalues.tolist() == pytest.approx([0.1, 0.5, 2.0])


@pytest.mark.parametrize("sigma_data", [0.0, -1.0, 1e-18, 1e18, math.inf, math.nan])
def test_sigma_data_must_be_a_standard_deviation(sigma_data):
    with pytest.raises(ArgumentError, match="sigma_data"):
        Isotropic(sigma_data)


def test_events_of_another_shape_are_refused():
    denoiser = Preconditioned(ResidualMLP((1, 4, 4), 8, 1), EDM())
    with pytest.raises(ShapeError, match=r"\(1, 4, 4\)"):
        denoiser.denoise(torch.zeros(2, 1, 5, 5), 0.5)


def test_scalings_follow_the_dtype_there_and_back():
    """Casting to float32 for one call must not cost precision in the next float64 call."""
    law, process = gaussian("dense"), VariancePreserving()
    denoiser = Preconditioned(Probe(), process, GaussianScalings(law))
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    before = denoiser.denoise(x, 0.5)
    assert denoiser.denoise(x.float(), 0.5).dtype == torch.float32
    assert torch.equal(denoiser.denoise(x, 0.5), before)


def test_mixed_precision_is_for_the_network_alone():
    """Under bfloat16 autocast a silent network is still the posterior mean to float32 (bfloat16 would miss it by 1e-2)."""
    law, process = gaussian("dense"), VariancePreserving()
    denoiser = Preconditioned(ResidualMLP(SHAPE, 8, 1), process, GaussianScalings(law))
    x = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        got = denoiser.denoise(x, 0.4)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, law.posterior_mean(x, process, 0.4), rtol=1e-5, atol=1e-5)
