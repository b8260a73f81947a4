"""Emergence: the Gaussian's closed form under every process, guidance and classes on exact laws, winner-take-all, bad input."""

import json
import math

import pytest
import torch

from sfumato.denoise import Denoiser
from sfumato.errors import ArgumentError
from sfumato.exact import Empirical, Gaussian, SpectralCovariance
from sfumato.explain import emergence, emergence_by_condition
from sfumato.noise import EDM, FlowMatching, VariancePreserving
from sfumato.sample import reference, reference_times
from sfumato.seeds import noise

F64 = torch.float64


def path_of(denoiser, law, steps=30, n=24):
    process = denoiser.process
    x = process.prior_sample(noise(0, n, law.event_shape, dtype=F64).draw(0))
    return reference(denoiser.denoise, x, process, law, reference_times(process, steps))


@pytest.mark.parametrize("process", [EDM(), VariancePreserving(), FlowMatching()], ids=lambda p: p.kind)
@pytest.mark.parametrize("level", [1 / math.sqrt(2), 0.4])
def test_a_gaussians_components_emerge_at_their_standard_deviation(full_gaussian, process, level):
    """k = sqrt(l (1/c^2 - 1)), i.e. sqrt(l) at the default level, and the curve sqrt(l) / sqrt(l + k^2)."""
    denoiser = full_gaussian.denoiser(process)
    out = emergence(denoiser, path_of(denoiser, full_gaussian), full_gaussian, components=9, level=level)
    assert out.emerged == pytest.approx(out.predicted, rel=1e-5)
    assert out.predicted == pytest.approx((full_gaussian.covariance.eigenvalues[:9] * (1 / level**2 - 1)).sqrt().tolist(), rel=1e-12)
    for variance, curve in zip(out.variances, out.curves, strict=True):
        assert curve == pytest.approx([math.sqrt(variance / (variance + k * k)) for k in out.ratios], abs=1e-6)
    assert out.rank_correlation == pytest.approx(1.0)
    assert out.slope == pytest.approx(1.0, abs=1e-5)
    json.dumps(out.to_dict(), allow_nan=False)


def test_components_beyond_a_tenth_of_the_mean_variance_are_the_default(full_gaussian):
    denoiser = full_gaussian.denoiser(EDM())
    out = emergence(denoiser, path_of(denoiser, full_gaussian, 8, 4), full_gaussian)
    lam = full_gaussian.covariance.eigenvalues
    assert len(out.curves) == int((lam >= 0.1 * lam.mean()).sum())


def test_a_memorising_model_decides_everything_at_once():
    """The control: 12 training points in 6 dimensions; features follow the choice of a point, not their variance."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.logspace(0.5, -1, 6, dtype=F64)
    points = torch.randn(12, 6, dtype=F64, generator=generator) * scale
    away = points - points.mean(0)
    law = Gaussian(points.mean(0), SpectralCovariance.from_dense(away.T @ away / 12))
    learned, memorised = (
        emergence(d, path_of(d, law, 40, 100), law, components=6) for d in (law.denoiser(EDM()), Empirical(points).denoiser(EDM()))
    )
    assert learned.slope == pytest.approx(1.0, abs=0.01)
    assert memorised.slope < 0.7


class ByClass(Denoiser):
    """Class 0 and 1 have their own Gaussian; no class, the first."""

    def __init__(self, laws, process):
        self.laws, self.process = laws, process

    def denoise(self, x, t, condition=None):
        label = 0 if condition is None else int(condition[0])
        return self.laws[label].posterior_mean(x, self.process, t)


def test_every_condition_has_its_own_curves(full_gaussian):
    """Two classes with the same axes, one of a quarter of the variance: its features emerge at half the noise."""
    process = VariancePreserving()
    small = Gaussian(full_gaussian.mean, full_gaussian.covariance.map(lambda v: v / 4), (3, 4))
    starts = process.prior_sample(noise(0, 32, (3, 4), dtype=F64).draw(0))
    out = emergence_by_condition(
        ByClass([full_gaussian, small], process),
        starts,
        reference_times(process, 30),
        full_gaussian,
        {"wide": torch.tensor(0), "narrow": torch.tensor(1), "none": None},
        components=6,
    )
    wide, narrow = out.parts["wide"], out.parts["narrow"]
    assert narrow.emerged == pytest.approx([k / 2 for k in wide.emerged], rel=1e-3)
    assert out.parts["none"].emerged == wide.emerged
    assert "latest under narrow" in out.meaning
    assert out.numbers["wide: slope"] == pytest.approx(1.0, abs=5e-3)


def test_pictures_have_the_measured_and_the_predicted(full_gaussian):
    from matplotlib.figure import Figure

    denoiser = full_gaussian.denoiser(EDM())
    ax = Figure().subplots()
    emergence(denoiser, path_of(denoiser, full_gaussian, 20, 8), full_gaussian).plot(ax)
    assert len(ax.get_legend().get_texts()) == 3
    ax = Figure().subplots()
    starts = noise(0, 4, (3, 4), dtype=F64).draw(0) * 80
    emergence_by_condition(denoiser, starts, reference_times(EDM(), 8), full_gaussian, {"all": None}).plot(ax)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["all", "Gaussian"]


def test_bad_input_is_refused_by_name(full_gaussian):
    denoiser = full_gaussian.denoiser(EDM())
    path = path_of(denoiser, full_gaussian, 6, 4)
    with pytest.raises(ArgumentError, match="level"):
        emergence(denoiser, path, full_gaussian, level=1.0)
    with pytest.raises(ArgumentError, match="components"):
        emergence(denoiser, path, full_gaussian, components=13)
    with pytest.raises(ArgumentError, match="three trajectories"):
        emergence(denoiser, path[:2], full_gaussian)
    with pytest.raises(ArgumentError, match="conditions"):
        emergence_by_condition(denoiser, path.states[0], path.times, full_gaussian, {})
