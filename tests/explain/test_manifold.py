"""Local dimension and slices: counts of known spectra, a manifold of known dimension, ellipses, slerp's invariants, bad input."""

import json
import math

import pytest
import torch

from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import GaussianMixture, SpectralCovariance
from sfumato.explain import manifold_dimension, manifold_scan, slerp
from sfumato.noise import EDM, VariancePreserving
from sfumato.sample import Ancestral, Exponential, Linearisation, reference_times
from sfumato.seeds import noise

F64 = torch.float64


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("process", [EDM(), VariancePreserving()], ids=lambda p: p.kind)
def test_a_gaussians_dimension_is_the_count_of_variances_above_the_noise(thin_gaussian, process):
    """Variances 3, 1, .4, .2 and eight times .05: counts and soft counts at four levels, at every point the same."""
    out = manifold_dimension(thin_gaussian.denoiser(process), thin_gaussian.sample(3, 0), (0.1, 0.5, 0.9, 1.5), thin_gaussian)
    assert out.dimensions == out.gaussian == [12, 3, 2, 1]
    assert out.spreads == [0, 0, 0, 0]
    assert out.kept == pytest.approx(out.gaussian_kept, abs=1e-9)
    assert out.gaussian_kept[1] == pytest.approx(sum(v / (v + 0.25) for v in [3, 1, 0.4, 0.2] + 8 * [0.05]))
    assert out.unsettled == 0
    json.dumps(out.to_dict(), allow_nan=False)


def test_curved_data_have_fewer_local_dimensions_than_their_gaussian():
    """Modes of rank 2 around a simplex in 12 dimensions: locally 2 where the Gaussian counts the modes' spread as well."""
    axes = torch.linalg.qr(draw(12, 2, seed=1))[0]
    law = GaussianMixture(
        None, 3 * torch.eye(12, dtype=F64)[:6], [SpectralCovariance.low_rank(axes, torch.full((2,), 0.3, dtype=F64), 1e-6)] * 6
    )
    out = manifold_dimension(law.denoiser(EDM()), law.sample(10, 0), (0.2,), law.gaussian())
    assert out.dimensions == [2]
    assert out.gaussian[0] == 7
    assert "2.0 of 12" in out.meaning


def test_only_leading_directions_are_searched_where_asked_and_the_answer_says_so(thin_gaussian):
    out = manifold_dimension(thin_gaussian.denoiser(EDM()), thin_gaussian.sample(2, 0), (0.1,), thin_gaussian, k=5)
    assert out.dimensions == [5]
    assert out.searched == 5
    assert "or more" in out.meaning


def test_slerp_keeps_the_norm_and_meets_both_ends_where_a_line_does_not():
    a, b = draw(50, seed=1), draw(50, seed=2)
    a, b = a / a.norm() * 7, b / b.norm() * 7
    w = torch.linspace(0, 1, 9, dtype=F64)
    arc = slerp(a, b, w)
    torch.testing.assert_close(arc.norm(dim=1), torch.full((9,), 7.0, dtype=F64), rtol=0, atol=1e-12)
    torch.testing.assert_close(arc[[0, -1]], torch.stack([a, b]), rtol=0, atol=1e-12)
    steps = (arc[1:] - arc[:-1]).norm(dim=1)
    torch.testing.assert_close(steps, steps[:1].expand(8), rtol=0, atol=1e-12)
    assert float(((a + b) / 2).norm()) < 0.8 * 7


@pytest.mark.parametrize("process", [EDM(), VariancePreserving()], ids=lambda p: p.kind)
def test_a_gaussians_slice_is_an_ellipse_and_chords_lose_variance(full_gaussian, process):
    program = Exponential(Linearisation.gaussian(full_gaussian, 0.5)).compile(process, reference_times(process, 12))
    z = draw(2, 3, 4, seed=3)
    out = manifold_scan(full_gaussian.denoiser(process), program, full_gaussian, z[0], z[1], angles=16)
    assert out.steps == pytest.approx(out.gaussian_steps, rel=1e-6)
    assert out.planar == pytest.approx(1, abs=1e-9)
    # opposite samples are reflections of one another in the mean of the flow's ends
    middle = (out.samples[:8] + out.samples[8:]) / 2
    torch.testing.assert_close(middle, middle[:1].expand_as(middle), rtol=0, atol=1e-9)
    # the mean of 1 / (|cos| + |sin|)^2 over 16 angles
    turn = torch.arange(16, dtype=F64) * math.pi / 8
    lost = float((1 / (turn.cos().abs() + turn.sin().abs()) ** 2).mean().sqrt())
    assert 0.6 < lost < out.chord_spread / out.spread + 0.1
    assert out.chord_spread < 0.95 * out.spread
    json.dumps(out.to_dict(), allow_nan=False)


def test_between_modes_the_curve_jumps(g4):
    """Four modes that are no Gaussian: the largest step is far above the mean one, and the curve is no plane of equal steps."""
    process = EDM()
    narrow = GaussianMixture(g4.weights, g4.means * 3, g4.covariances)
    law = narrow.gaussian()
    program = Exponential(Linearisation.gaussian(law, 0.5), steps=3).compile(process, reference_times(process, 40))
    z = noise(0, 2, (2,), dtype=F64).draw(0)
    out = manifold_scan(narrow.denoiser(process), program, law, z[0], z[1], angles=48)
    assert out.numbers["largest_step_over_mean"] > 3
    assert max(out.gaussian_steps) / (sum(out.gaussian_steps) / 48) < 1.6


def test_pictures_have_the_measured_and_the_predicted(full_gaussian):
    from matplotlib.figure import Figure

    process = EDM()
    program = Exponential(Linearisation.gaussian(full_gaussian, 0.5)).compile(process, reference_times(process, 6))
    z = draw(2, 3, 4)
    denoiser = full_gaussian.denoiser(process)
    for explanation in (
        manifold_dimension(denoiser, full_gaussian.sample(2, 0), (0.1, 1.0), full_gaussian),
        manifold_scan(denoiser, program, full_gaussian, z[0], z[1], angles=4),
    ):
        ax = Figure().subplots()
        explanation.plot(ax)
        assert len(ax.get_legend().get_texts()) >= 2
        assert ax.get_xlabel()


def test_bad_input_is_refused_by_name(full_gaussian):
    denoiser, z = full_gaussian.denoiser(EDM()), draw(2, 3, 4)
    times = reference_times(EDM(), 6)
    program = Exponential(Linearisation.gaussian(full_gaussian, 0.5)).compile(EDM(), times)
    with pytest.raises(ArgumentError, match="ratios"):
        manifold_dimension(denoiser, z, (), full_gaussian)
    with pytest.raises(ArgumentError, match="angles"):
        manifold_scan(denoiser, program, full_gaussian, z[0], z[1], angles=6)
    with pytest.raises(ArgumentError, match="one line"):
        manifold_scan(denoiser, program, full_gaussian, z[0], 2 * z[0])
    with pytest.raises(ArgumentError, match="deterministic"):
        manifold_scan(denoiser, Ancestral(1.0, label="ddpm").compile(EDM(), times), full_gaussian, z[0], z[1])
    with pytest.raises(ArgumentError, match="one line"):
        slerp(z[0], -z[0], torch.tensor([0.5], dtype=F64))
    with pytest.raises(ShapeError, match="z2"):
        slerp(z[0], z[0, 0], torch.tensor([0.5], dtype=F64))
