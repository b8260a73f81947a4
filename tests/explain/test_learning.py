"""The course of a training run: read off exact curves as theory says, measured on real runs as the parts measure it."""

from __future__ import annotations

import json
import math

import matplotlib
import pytest
import torch
from matplotlib.figure import Figure

from sfumato.data import Dataset
from sfumato.denoise import GaussianScalings, Preconditioned, ResidualMLP
from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import fit_gaussian
from sfumato.exact.learning.linear_learning import OneLayer
from sfumato.explain.learning.learning import LearningProbe, learning_of, learning_report
from sfumato.explain.learning.learning_comparison import compare_learning
from sfumato.explain.learning.learning_curve import learning_curve
from sfumato.explain.learning.learning_tables import PUBLISHED
from sfumato.explain.learning.learning_twins import gaussian_twin, untrained_twin, whitened_twin
from sfumato.explain.learning.mode_variance import mode_learning, mode_variances
from sfumato.explain.score.score_probe import ScoreProbe, score_probe
from sfumato.explain.worlds import fit_worlds
from sfumato.learn import FitSettings, Recorder, fit
from sfumato.noise import EDM, VariancePreserving

matplotlib.use("agg")
SETTINGS = FitSettings(40, 64, 3e-3, warmup=0, seed=3)
RATIOS = (0.3, 1.0)


@pytest.fixture(scope="module")
def data():
    """Four clusters in four dimensions, whose principal variances differ by a factor of 50."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(4, 4, generator=generator)
    x = centres[torch.arange(600) % 4] + 0.2 * torch.randn(600, 4, generator=generator)
    return Dataset("clusters", (x * torch.tensor([1.5, 0.8, 0.5, 0.2]))[:500], x[500:])


@pytest.fixture(scope="module")
def worlds(data):
    return fit_worlds(data, components=4)


def network(scalings=0.5):
    return Preconditioned(ResidualMLP((4,), 16, 2), EDM(), scalings)


def weights(denoiser):
    return torch.cat([p.detach().flatten() for p in denoiser.parameters()])


def curve_of(gaussian, mixture, steps, ratio=0.1):
    probes = [
        ScoreProbe([ratio], {"isotropic": ([0.0], [0.0]), "gaussian": ([g], [0.0]), "mixture": ([m], [0.0])})
        for g, m in zip(gaussian, mixture, strict=True)
    ]
    return learning_curve(steps, probes, "raw")


def test_peak_drop_and_overtaking_of_a_known_curve():
    """The mixture is ahead at random at the start; that is no overtaking, only the last stretch up to the end counts."""
    curve = curve_of([-2.0, 0.5, 0.9, 0.8, 0.7], [-1.0, 0.2, 0.6, 0.85, 0.9], [0, 10, 20, 40, 80])
    (level,) = curve.levels
    assert (level.peak_step, level.peak, level.overtaken) == (20, 0.9, {"mixture": 40})
    assert level.drop == pytest.approx(0.2)
    assert curve.at(0.1, "mixture")[-1] == 0.9
    assert curve_of([0.1, 0.5], [0.3, 0.4], [0, 1]).levels[0].overtaken == {"mixture": None}
    assert "after 20 of 80 steps" in curve.meaning
    assert "the mixture from step 40 on" in curve.meaning


def test_curves_that_do_not_fit_together_are_refused():
    probe = ScoreProbe([0.1], {"gaussian": ([0.1], [0.0])})
    for steps, probes in (([0], []), ([], []), ([0], [ScoreProbe([0.1], {})]), ([0, 1], [probe, ScoreProbe([0.2], probe.explained)])):
        with pytest.raises(ArgumentError):
            learning_curve(steps, probes, "raw")
    curve = learning_curve([0], [probe], "raw")
    with pytest.raises(ArgumentError):
        curve.at(0.3)
    with pytest.raises(ShapeError):
        curve.beside(learning_curve([0], [ScoreProbe([0.2], probe.explained)], "raw"))


def linear_run(targets, rate=1e-3):
    steps = [0, *(round(1.15**i) for i in range(5, 60))]
    steps = sorted(set(steps))
    return steps, [OneLayer(0.1, rate).generated_variance(targets, step) for step in steps]


def test_linear_learning_is_read_off_with_exponent_minus_one_and_control_without():
    targets = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5, 1e-9], dtype=torch.float64)
    modes = mode_learning(*linear_run(targets), targets)
    assert len(modes.targets) == 5  # a direction without variance is left out
    assert modes.order == pytest.approx(-1)
    assert modes.rising_rate.slope == pytest.approx(-1, abs=0.1)
    assert modes.falling_rate is None
    alike = torch.ones(5, dtype=torch.float64)
    twin = mode_learning(*linear_run(alike), alike)
    assert max(twin.learned_at) == min(twin.learned_at)
    assert modes.beside(twin).twin == twin.learned_at
    with pytest.raises(ShapeError):
        mode_learning(*linear_run(alike[:2]), alike[:2]).beside(twin)


def test_mode_variances_of_the_exact_denoiser_are_the_laws(worlds):
    """`n` normal samples have a variance with standard deviation `sqrt(2/n)`, relatively; 5 of these, and 2 percent for the solver."""
    law, n = worlds.gaussian, 1000
    for process in (EDM(), VariancePreserving()):
        measured = mode_variances(law.denoiser(process), law, n, steps=24)
        torch.testing.assert_close(measured, law.covariance.eigenvalues, rtol=5 * math.sqrt(2 / n) + 0.02, atol=0)


def test_a_report_measures_what_its_parts_measure_and_leaves_the_denoiser_alone(data, worlds):
    """The last record against `score_probe` itself, which asks the laws anew, on weights from a run without anybody looking."""
    denoiser, probe, heard = network(), LearningProbe(worlds, data.train[:50], RATIOS, samples=32), []
    before = weights(denoiser)
    report = learning_report(
        denoiser, data, SETTINGS, probe=probe, records=6, weights="averaged", progress=lambda done, total, loss: heard.append((done, total))
    )
    assert torch.equal(weights(denoiser), before)
    assert heard[-1] == (40, 40)
    assert report.curve.steps[0] == 0
    assert report.curve.steps[-1] == 40
    assert report.curve.weights == "averaged"
    fit(denoiser, data, SETTINGS)
    laws = {name: law.denoiser(denoiser.process) for name, law in worlds.approximants().items()}
    direct = score_probe(denoiser, laws, data.train[:50], RATIOS)
    for name, (means, _) in direct.explained.items():
        assert report.curve.explained[name][-1] == pytest.approx(means, rel=1e-5, abs=1e-6)
    assert report.modes.variances[-1] == pytest.approx(mode_variances(denoiser, worlds.gaussian, 32).tolist(), rel=1e-5)
    assert report.numbers.keys() >= {"peak_step", "drop", "exponent_rising"}


def test_gaussian_scalings_switch_the_first_phase_off(data, worlds):
    """A network that starts as the Gaussian has nothing of it to learn: it explains all at step 0, and never again as much."""
    probe = LearningProbe(worlds, data.train[:50], RATIOS, samples=0)
    known = learning_report(network(GaussianScalings(fit_gaussian(data.batches(100)))), data, SETTINGS, probe=probe, records=4)
    assert known.modes is None
    assert known.curve.at(0.3)[0] == pytest.approx(1, abs=1e-5)
    assert known.curve.headline.peak_step == 0
    assert "began as the Gaussian" in known.meaning
    plain = learning_report(network(), data, SETTINGS, probe=LearningProbe(worlds, data.train[:50], RATIOS, samples=0), records=4)
    assert plain.curve.at(0.3)[0] < 0.9


def test_a_recorder_that_saw_nothing_makes_no_report(data, worlds):
    with pytest.raises(ArgumentError):
        learning_of(Recorder(LearningProbe(worlds, data.train[:5]), [0]), "nothing")


def test_untrained_twin_is_the_architecture_from_its_own_seed():
    trained = network(0.7)
    with torch.no_grad():
        trained.network.last.weight.add_(1)
    twin = untrained_twin(trained)
    assert torch.equal(weights(twin), weights(network(0.7)))
    assert twin.process == trained.process
    assert twin.scalings.to_config() == trained.scalings.to_config()
    with pytest.raises(ArgumentError):
        untrained_twin(Preconditioned(torch.nn.Identity(), EDM()))


def test_twins_of_the_data_have_the_moments_they_should(data, worlds):
    """A Gaussian twin has the law's covariance to sampling error; a whitened one is white to rounding, and its law says so."""
    law = worlds.gaussian
    twin = gaussian_twin(data, law, 20_000)
    sampled = fit_gaussian(twin.batches(4096))
    torch.testing.assert_close(sampled.covariance.eigenvalues, law.covariance.eigenvalues.double(), rtol=0.06, atol=0)
    white, white_law = whitened_twin(data, law, 2.0)
    measured = fit_gaussian(white.batches(4096)).covariance.dense()
    torch.testing.assert_close(measured, 2 * torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-4)
    torch.testing.assert_close(white_law.covariance.eigenvalues, torch.full((4,), 2.0, dtype=torch.float64))
    assert white_law.covariance.basis is law.covariance.basis
    less, less_law = whitened_twin(data, law, floor=0.5)
    assert int((less_law.covariance.eigenvalues > 0).sum()) == fit_gaussian(less.batches(4096)).covariance.spectrum.gt(1e-6).sum()
    with pytest.raises(ArgumentError):
        whitened_twin(data, law, 0.0)


def test_comparison_counts_time_in_peaks():
    """A curve made of the published one, with another clock: equal at every published time, and beyond the end NaN."""
    published = next(c for c in PUBLISHED if (c.run, c.approximant, c.ratio) == ("CIFAR-10", "gaussian", 0.1))
    times = [t for t in published.shares if t <= 1204]
    shares = [published.shares[t] for t in times]
    ours = curve_of(shares, [0.0] * len(shares), [2 * t for t in times])
    compared = compare_learning(ours, (published,))
    assert [row.ours for row in compared.rows[:-2]] == pytest.approx(shares)
    assert all(math.isnan(row.ours) for row in compared.rows[-2:])
    assert compared.numbers["median_gap"] == pytest.approx(0)
    assert compared.table().count("beyond our run") == 2
    with pytest.raises(ArgumentError):
        compare_learning(curve_of([0.1, 0.5], [0.0, 0.0], [0, 1]))
    with pytest.raises(ArgumentError):
        compare_learning(curve_of([0.1, 0.5, 0.3], [0.0] * 3, [0, 1, 2], ratio=0.77))


def test_published_gaussian_curves_peak_where_they_say():
    for curve in PUBLISHED:
        assert list(curve.shares) == sorted(curve.shares)
        if curve.approximant == "gaussian":
            assert max(curve.shares, key=curve.shares.__getitem__) == curve.peak


def test_everything_plots_and_is_plain_data(data, worlds):
    probe = LearningProbe(worlds, data.train[:50], RATIOS, samples=32)
    report = learning_report(network(), data, FitSettings(60, 64, 1e-2, warmup=0, schedule="constant"), probe=probe, records=6)
    twin = learning_report(network(), gaussian_twin(data, worlds.gaussian, 500), SETTINGS, probe=probe, records=2)
    both = report.beside(gaussian=twin, whitened=twin)
    known = compare_learning(curve_of([-1.0, 0.9, 0.8], [0.0] * 3, [0, 10, 20]))
    for part in (both, both.curve, both.modes, known):
        figure = Figure()
        axes = figure.subplots()
        part.plot(axes)
        assert axes.get_xlabel()
        assert axes.get_ylabel()
        assert axes.get_legend() is not None
        figure.canvas.draw()
        json.dumps(part.to_dict(), allow_nan=False)
        assert part.meaning.endswith(".")
    labels = [line.get_label() for line in _axes(both.curve).get_lines()]
    assert "Gaussian, of a network trained on it" in labels


def _axes(part):
    axes = Figure().subplots()
    part.plot(axes)
    return axes
