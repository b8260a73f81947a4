"""Variations: exact on a Gaussian under every process, close on a mixture, the same noise for a sample and its variations, bad input."""

import math

import pytest
import torch

from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import GaussianMixture, SpectralCovariance
from sfumato.noise import EDM, FlowMatching, VariancePreserving
from sfumato.sample import Ancestral, Exponential, Linearisation, karras, reference, reference_times
from sfumato.steer import kicked, variations

F64 = torch.float64


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def finish(law, process, ratio, steps=12):
    times = karras(process, steps, ratio_max=ratio)
    return Exponential(Linearisation.gaussian(law, 0.5)).compile(process, times)


@pytest.mark.parametrize("process", [EDM(), VariancePreserving(), FlowMatching()], ids=lambda p: p.kind)
@pytest.mark.parametrize("ratio", [3.0, 0.2])
def test_a_gaussians_samples_move_by_as_many_standard_deviations_as_they_were_kicked(full_gaussian, process, ratio):
    """a sqrt(alpha^2 l + sigma^2) ends as a sqrt(l), in length and direction: the finishing program is exact on its own Gaussian."""
    program = finish(full_gaussian, process, ratio)
    x = draw(2, 3, 4) * float(process.sigma(program.times[0]))
    out = variations(full_gaussian.denoiser(process), x, program, 3, (-2.0, 0.5))
    torch.testing.assert_close(out.predicted, full_gaussian.covariance.eigenvalues[:3].sqrt().expand(2, 3), rtol=1e-5, atol=0)
    torch.testing.assert_close(out.ratios, torch.ones(2, 3, 2, dtype=F64), rtol=0, atol=1e-4)
    torch.testing.assert_close(out.cosines, torch.ones(2, 3, 2, dtype=F64), rtol=0, atol=1e-4)
    assert out.samples.shape == (2, 3, 2, 3, 4)


def test_a_program_that_stops_early_moves_by_the_scale_of_where_it_stops(full_gaussian):
    process = VariancePreserving()
    times = tuple(float(process.time_of_ratio(k)) for k in (2.0, 1.0, 0.5))
    program = Exponential(Linearisation.gaussian(full_gaussian, 0.5)).compile(process, times)
    out = variations(full_gaussian.denoiser(process), draw(2, 3, 4), program, 2)
    alpha, sigma = process.levels(times[-1])
    expected = torch.sqrt(alpha**2 * full_gaussian.covariance.eigenvalues[:2] + sigma**2)
    torch.testing.assert_close(out.lengths[..., 0], expected.expand(2, 2), rtol=1e-4, atol=0)


@pytest.fixture(scope="module")
def far_modes():
    means = 4 * torch.eye(6, dtype=F64)[:3]
    axes, _ = torch.linalg.qr(draw(6, 2, seed=3))
    return GaussianMixture(None, means, [SpectralCovariance.low_rank(axes, torch.tensor([0.5, 0.2], dtype=F64), 1e-4)] * 3)


def test_below_the_modes_distance_a_mixture_behaves_as_its_own_mode(far_modes):
    process, law = EDM(), far_modes.gaussian()
    times = reference_times(process, 40)
    denoiser = far_modes.denoiser(process)
    path = reference(denoiser.denoise, process.prior_sample(draw(4, 6, seed=5)), process, law, times)
    i = min(range(len(times)), key=lambda j: abs(times[j] * 80 - 0.4))
    program = Exponential(Linearisation.gaussian(law, 0.5), steps=3).compile(process, times[i:])
    out = variations(denoiser, path.states[i], program, 2, (0.5,))
    torch.testing.assert_close(out.predicted, torch.tensor([0.5, 0.2], dtype=F64).sqrt().expand(4, 2), rtol=5e-3, atol=0)
    torch.testing.assert_close(out.ratios, torch.ones_like(out.ratios), rtol=0, atol=0.02)
    # the control: kicks of the same lengths off the mode's own axes are forgotten
    away = draw(4, 6, seed=6)
    axes = out.local.directions
    away = away - torch.einsum("bk,bkd->bd", torch.einsum("bd,bkd->bk", away, axes), axes)
    away = away / away.norm(dim=1, keepdim=True) * out.kicks[:, 0, 0].norm(dim=1, keepdim=True)
    base, moved = kicked(denoiser, path.states[i], away[:, None], program)
    assert float((moved[:, 0] - base).norm(dim=1).max()) < 0.1 * float(out.lengths.min())


def test_largest_bounds_kicks_where_no_local_variance_is_defined():
    one = SpectralCovariance.isotropic(2, 0.01)
    law = GaussianMixture(None, torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=F64), [one, one])
    program = finish(law.gaussian(), EDM(), 0.5)
    middle = torch.zeros(1, 2, dtype=F64)
    free = variations(law.denoiser(EDM()), middle, program, 1, (0.01,))
    bound = variations(law.denoiser(EDM()), middle, program, 1, (0.01,), largest=1.01)
    assert float(free.local.gains) > 1
    assert float(free.kicks.norm()) == pytest.approx(0.01 * 0.5 / math.sqrt(1e-3), rel=1e-6)
    assert float(bound.kicks.norm()) == pytest.approx(0.01 * math.sqrt(1.01 + 0.25), rel=1e-6)


def test_a_stochastic_program_gives_a_state_and_its_kicks_the_same_noise_whatever_the_batch(full_gaussian):
    process = VariancePreserving()
    program = Ancestral(1.0, label="ddpm").compile(process, karras(process, 6, ratio_max=2.0))
    denoiser, x = full_gaussian.denoiser(process), draw(3, 3, 4)
    base, same = kicked(denoiser, x, torch.zeros(3, 2, 3, 4, dtype=F64), program, seed=5)
    torch.testing.assert_close(same, base[:, None].expand_as(same), rtol=0, atol=1e-13)
    alone, _ = kicked(denoiser, x[2:], torch.zeros(1, 1, 3, 4, dtype=F64), program, seed=7)
    torch.testing.assert_close(alone, base[2:], rtol=0, atol=1e-13)
    other, _ = kicked(denoiser, x, torch.zeros(3, 2, 3, 4, dtype=F64), program, seed=6)
    assert not torch.allclose(other, base, atol=1e-3)


def test_bad_input_is_refused_by_name(full_gaussian):
    denoiser, program = full_gaussian.denoiser(EDM()), finish(full_gaussian, EDM(), 1.0)
    with pytest.raises(ArgumentError, match="amplitudes"):
        variations(denoiser, draw(2, 3, 4), program, 2, (1.0, 0.0))
    with pytest.raises(ArgumentError, match="largest"):
        variations(denoiser, draw(2, 3, 4), program, 2, largest=0.0)
    with pytest.raises(ShapeError, match="kicks"):
        kicked(denoiser, draw(2, 3, 4), draw(2, 3, 4), program)
