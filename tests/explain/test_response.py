"""Perturbation response and the variation sheet: the Gaussian's closed forms under every process, labels, bad input."""

import json
import math

import pytest
import torch

from sfumato.errors import ArgumentError
from sfumato.exact import GaussianMixture
from sfumato.explain import perturbation_response, variation_sheet
from sfumato.noise import EDM, Cosine, VariancePreserving
from sfumato.sample import reference, reference_times
from sfumato.seeds import noise

F64 = torch.float64


def path_of(denoiser, law, steps=24, n=8):
    process = denoiser.process
    x = process.prior_sample(noise(0, n, law.event_shape, dtype=F64).draw(0))
    return reference(denoiser.denoise, x, process, law, reference_times(process, steps))


@pytest.mark.parametrize("component", [0, 4])
@pytest.mark.parametrize("process", [EDM(), VariancePreserving(), Cosine()], ids=lambda p: p.kind)
def test_a_gaussians_gain_is_the_closed_form(full_gaussian, process, component):
    """sqrt(l / (alpha^2 l + sigma^2)): above 1 only where a scalar process shrinks the signal, and 1 at the clean end."""
    denoiser = full_gaussian.denoiser(process)
    out = perturbation_response(denoiser, path_of(denoiser, full_gaussian), full_gaussian, (5.0, 1.0, 0.2, 0.03), component=component)
    lam = float(full_gaussian.covariance.eigenvalues[component])
    alpha, sigma = process.levels(process.time_of_ratio(torch.tensor(out.ratios, dtype=F64)))
    expected = torch.sqrt(lam / (alpha**2 * lam + sigma**2)).tolist()
    assert out.gains_predicted == pytest.approx(expected, rel=1e-9)
    assert out.gains == pytest.approx(expected, rel=1e-4)


def test_isotropic_kicks_end_as_the_sum_over_modes_says(full_gaussian):
    """Root mean square change a sigma sqrt(sum g^2); the mean length of 150 of them is close below it (Jensen)."""
    denoiser = full_gaussian.denoiser(EDM())
    path = path_of(denoiser, full_gaussian, 16, 150)
    out = perturbation_response(denoiser, path, full_gaussian, (20.0, 1.0, 0.05), amplitude=0.1)
    expected = [0.1 * math.sqrt(sum(k * k * v / (v + k * k) for v in full_gaussian.covariance.eigenvalues.tolist())) for k in out.ratios]
    assert out.changes_predicted == pytest.approx(expected, rel=1e-6)
    for measured, bound in zip(out.changes, expected, strict=True):
        assert 0.85 * bound < measured < 1.02 * bound
    assert out.changes[0] > out.changes[1] > out.changes[2]


def test_labels_change_early_and_not_late(g4):
    """Four far modes: content is which of them, and a late kick cannot cross."""
    far = GaussianMixture(g4.weights, 3 * g4.means, g4.covariances)
    denoiser, law = far.denoiser(VariancePreserving()), far.gaussian()
    path = path_of(denoiser, law, 24, 200)
    out = perturbation_response(denoiser, path, law, (20.0, 0.05), amplitude=0.3, labeller=lambda x: far.responsibilities(x).argmax(1))
    assert out.relabelled[0] > 0.1
    assert out.relabelled[1] < 0.01
    assert "early_relabelled" in out.numbers
    assert "show" in out.meaning
    json.dumps(out.to_dict(), allow_nan=False)


def test_levels_are_the_nearest_nodes_each_once_and_never_an_end(full_gaussian):
    denoiser = full_gaussian.denoiser(Cosine())
    path = path_of(denoiser, full_gaussian, 10, 2)
    out = perturbation_response(denoiser, path, full_gaussian, (1e9, 1e8, 1e-9))
    known = path.process.ratio(torch.tensor(path.times, dtype=F64)).tolist()
    assert out.ratios == pytest.approx([known[1], known[-2]])


def test_a_gaussians_sheet_agrees_with_its_predictions_and_random_kicks_fall_behind(full_gaussian):
    denoiser = full_gaussian.denoiser(EDM())
    sheet = variation_sheet(denoiser, path_of(denoiser, full_gaussian, 40, 3), full_gaussian, (2.0, 0.1), k=2, amplitudes=(-0.5, 1.0))
    for row in sheet.rows:
        assert row.predicted == pytest.approx(full_gaussian.covariance.eigenvalues[:2].sqrt().tolist(), rel=1e-4)
        assert row.measured == pytest.approx(row.predicted, rel=1e-3)
        assert row.agreement == pytest.approx(1, abs=1e-3)
        assert row.cosine == pytest.approx(1, abs=1e-3)
    assert sheet.rows[0].random < 0.6
    assert sheet.rows[0].samples.shape == (3, 2, 2, 3, 4)
    json.dumps(sheet.to_dict(), allow_nan=False)
    assert "100%" in sheet.meaning


def test_pictures_have_the_measured_and_the_predicted(full_gaussian):
    from matplotlib.figure import Figure

    denoiser = full_gaussian.denoiser(EDM())
    path = path_of(denoiser, full_gaussian, 12, 2)
    for explanation in (
        perturbation_response(denoiser, path, full_gaussian, (10.0, 1.0, 0.1)),
        variation_sheet(denoiser, path, full_gaussian, (10.0, 1.0), k=2),
    ):
        ax = Figure().subplots()
        explanation.plot(ax)
        assert len(ax.get_legend().get_texts()) >= 3
        assert ax.get_xlabel()
        assert ax.get_ylabel()


def test_bad_input_is_refused_by_name(full_gaussian):
    denoiser = full_gaussian.denoiser(EDM())
    path = path_of(denoiser, full_gaussian, 8, 2)
    for given in ({"ratios": ()}, {"ratios": (1.0,), "amplitude": 0.0}, {"ratios": (1.0,), "component": 12}):
        with pytest.raises(ArgumentError, match="ratios, amplitude, component"):
            perturbation_response(denoiser, path, full_gaussian, **given)
    with pytest.raises(ArgumentError, match="positive ratios"):
        perturbation_response(denoiser, path, full_gaussian, (0.0,))
