"""The report finds what was put in: copies, gaps, target noise; distances to a hull agree with geometry."""

from __future__ import annotations

import json
import math

import pytest
import torch
from matplotlib.figure import Figure

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError, DataError, ShapeError
from sfumato.exact import Empirical
from sfumato.exact.learning.proxy import proxy_variance
from sfumato.explain.generalising.generalization import generalization_report
from sfumato.explain.generalising.memorization import memorised_share, memorization, nearest
from sfumato.explain.generalising.proxy_map import proxy_map
from sfumato.explain.generalising.regions import hull_distance, masses
from sfumato.explain.generalising.section import Section
from sfumato.learn.closed.features import GaussianBumps
from sfumato.learn.closed.linear_denoiser import fit_linear
from sfumato.learn.closed.triples import Regression
from sfumato.noise import EDM, FlowMatching
from sfumato.sample import uniform_time

PROCESS = FlowMatching()
SQUARE = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_copies_are_found_and_new_samples_are_not():
    """A mixture of 30 percent perturbed training events and 70 percent fresh ones is told apart to the last one, in 16 dimensions."""
    train, held_out = normal(400, 4, 4), normal(200, 4, 4, seed=1)
    copies, fresh = train[:60] + 0.01 * normal(60, 4, 4, seed=2), normal(140, 4, 4, seed=3)
    found = memorization(torch.cat([copies, fresh]), train, held_out)
    assert found.fraction == 0.3
    assert found.reference == 0.0
    assert found.nearest[:60] == list(range(60))
    assert "repeats training data" in found.meaning
    honest = memorization(fresh, train, held_out)
    assert honest.fraction == 0.0
    assert "no more than chance" in honest.meaning
    assert honest.distance == pytest.approx(honest.held_out_distance, rel=0.05)
    json.dumps(found.to_dict(), allow_nan=False)


def test_on_the_line_the_reference_is_what_makes_the_ratio_mean_something():
    """In one dimension ratios below 1/3 are common among honest samples: for two neighbours at random it happens about half of the time."""
    train, held_out, fresh = normal(500, 1), normal(3000, 1, seed=1), normal(3000, 1, seed=2)
    found = memorization(fresh, train, held_out)
    assert found.reference > 0.3
    assert abs(found.fraction - found.reference) < 4 * math.sqrt(0.5 / 3000)
    assert "no more than chance" in found.meaning


def test_neighbours_agree_with_brute_force_in_float64_and_copies_are_at_distance_zero():
    points, x = 100 + normal(3000, 2, 3), 100 + normal(50, 2, 3, seed=1)
    x[:5] = points[10:15]
    distances, numbers = nearest(x, points, 3)
    exact = torch.linalg.vector_norm((x.double()[:, None] - points.double()).flatten(2), dim=2).sort(1)
    torch.testing.assert_close(distances, exact.values[:, :3])
    assert torch.equal(numbers, exact.indices[:, :3])
    assert float(distances[:5, 0].max()) == 0
    assert memorised_share(points[:7], points.repeat(2, 1, 1)) == 1.0


def test_hull_distance_is_geometry():
    """Of the square |x| + |y| <= 1: 0 inside, to a side (|x| + |y| - 1)/sqrt 2, to a corner the distance; on the line that to the ends."""
    x = torch.tensor([[0.2, 0.3], [0.5, 0.5], [1.0, 1.0], [3.0, 0.0], [2.0, -0.5]], dtype=torch.float64)
    expected = torch.tensor([0.0, 0.0, 1 / math.sqrt(2), 2.0, math.hypot(1.0, 0.5)], dtype=torch.float64)
    torch.testing.assert_close(hull_distance(x, SQUARE.double()), expected, rtol=0, atol=1e-6)
    line = torch.tensor([[-1.0], [2.0]])
    assert hull_distance(torch.tensor([[-1.5], [0.3], [4.0]]), line).tolist() == [0.5, 0.0, 2.0]
    found = masses(torch.tensor([[1.0, 0.05], [0.0, 0.0], [0.4, 0.4], [3.0, 0.0]]), SQUARE, 0.2)
    assert (found.near, found.gap, found.outside) == (0.25, 0.5, 0.25)


def test_the_map_has_the_proxy_covariance_at_its_places_and_peaks_between_points():
    points = torch.cat([SQUARE + 3, SQUARE[:1] + 3]).reshape(5, 1, 2)
    section = Section.of(points)
    assert section.axes.shape == (2, 2)
    found = proxy_map(Empirical(points), PROCESS, [0.3, 3.0], section, cells=9)
    t = PROCESS.time_of_ratio(0.3)
    alpha = float(PROCESS.alpha(t))
    place = section.origin + section.ticks(9)[2] * section.axes[0] + section.ticks(9)[5] * section.axes[1]
    trace = float(proxy_variance(Empirical(points), alpha * place.reshape(1, 1, 2), PROCESS, t)[0])
    assert float(found.trace[0, 2, 5]) == pytest.approx(alpha**2 * trace, rel=1e-6)
    middle, corner = float(found.share[0, 4, 4]), float(found.share[0, 0, 0])
    at_point = float(found.share[0, 4, 7])
    assert middle > 3 * max(corner, at_point)
    assert 0 < found.at_data[1] < found.at_data[0] < 1
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_plane_of_a_training_set_is_its_leading_components_whatever_the_event():
    train = normal(300, 3, 4, 4) * torch.linspace(5, 1, 48).reshape(3, 4, 4)
    section = Section.of(train)
    _, vectors = torch.linalg.eigh(torch.cov(train.flatten(1).T.double(), correction=0))
    torch.testing.assert_close((section.axes @ vectors[:, [-1, -2]]).abs(), torch.eye(2, dtype=torch.float64), atol=1e-4, rtol=0)
    found = proxy_map(Empirical(train), EDM(), [2.0], section, cells=5, samples=20)
    assert found.trace.shape == (1, 5, 5)
    assert bool(torch.isfinite(found.share).all())
    with pytest.raises(ShapeError, match="section"):
        proxy_map(Empirical(SQUARE), PROCESS, [1.0], section)
    with pytest.raises(ArgumentError, match="ratios"):
        proxy_map(Empirical(train), EDM(), [], section)
    with pytest.raises(DataError, match="vary"):
        Section.of(torch.ones(3, 2))


class Shifted(Denoiser):
    """The exact denoiser plus a constant: bias and variance are known."""

    def __init__(self, points, shift):
        self.exact, self.shift, self.process = Empirical(points).denoiser(PROCESS), shift, PROCESS

    def denoise(self, x, t, condition=None):
        return self.exact.denoise(x, t) + self.shift


def test_bias_and_variance_are_those_that_were_put_in():
    """Model i answers exactly, plus 0.2 and +-0.1 (proxy) or +-0.05 (clean): bias 2 (0.2^2), variances in the ratio 4, share 3/4."""

    def factory(target, seed):
        return Shifted(SQUARE, 0.2 + (0.1 if target == "proxy" else 0.05) * (-1) ** seed)

    report = generalization_report(factory, SQUARE, PROCESS, uniform_time(10, 1.0, 0.02), models=4, samples=50, ratios=[0.5, 1.0], cells=5)
    # four values +-a have the unbiased variance 4/3 a^2
    variance = 2 * 4 / 3 * 0.01
    assert report.budget.variance == pytest.approx([variance] * 2)
    assert report.budget.noise_share == pytest.approx([0.75] * 2)
    assert report.budget.bias == pytest.approx([2 * 0.04 - variance / 4] * 2, rel=1e-6)
    torch.testing.assert_close(report.variance_map, torch.full((2, 5, 5), variance, dtype=torch.float64))


def test_exact_models_have_the_exact_law_and_a_report_in_plain_data():
    report = generalization_report(
        lambda target, seed: Shifted(SQUARE, 0.0),
        SQUARE,
        PROCESS,
        uniform_time(40, 1.0, 0.02),
        models=4,
        samples=250,
        ratios=[1.0],
        cells=5,
    )
    assert report.learned.memorised == report.exact.memorised
    assert report.distances["total variation to the exact denoiser"] < 0.1
    assert report.exact.masses.near == pytest.approx(0.99, abs=0.005)
    assert max(report.budget.variance) == 0.0
    assert report.numbers["variance due to target noise"] == 0.0
    assert "0 % is common" in report.meaning


@pytest.fixture(scope="module")
def linear_report():
    points = torch.tensor([[-1.0], [0.0], [1.0]])
    law, features = Empirical(points), GaussianBumps(1, 10)

    def factory(target, seed):
        return fit_linear(features, Regression(law, PROCESS, target, t_min=0.02), 150, seed=seed)

    return generalization_report(factory, points, PROCESS, uniform_time(25, 1.0, 0.02), models=6, samples=200, cells=9)


def test_linear_models_owe_most_of_their_variance_to_the_noise_of_the_target(linear_report):
    assert linear_report.numbers["variance due to target noise"] > 0.5
    for law in (linear_report.learned, linear_report.mean_model, linear_report.exact):
        assert law.masses.near + law.masses.gap + law.masses.outside == pytest.approx(1)
        assert float(law.density.sum() * (linear_report.edges[1] - linear_report.edges[0])) == pytest.approx(1)
    assert linear_report.learned.masses.near < linear_report.exact.masses.near


def test_pictures_and_plain_data(linear_report):
    figure = Figure()
    for axes, draw in zip(figure.subplots(1, 3), (linear_report.plot, linear_report.plot_levels, linear_report.map.plot), strict=True):
        draw(axes)
        assert axes.get_xlabel()
        assert axes.get_legend()
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["learned, average over models", "25 to 75 % of models", "exact denoiser", "average model (V = 0)"]
    plain = linear_report.to_dict()
    json.dumps(plain, allow_nan=False)
    assert plain["numbers"]["learned: gap"] == linear_report.learned.masses.gap
    assert f"{100 * linear_report.learned.masses.gap:.1f} %" in linear_report.meaning


def test_bad_input():
    with pytest.raises(ArgumentError, match="models"):
        generalization_report(lambda target, seed: Shifted(SQUARE, 0.0), SQUARE, PROCESS, (1.0, 0.5), models=1)
    with pytest.raises(DataError, match="points"):
        generalization_report(lambda target, seed: Shifted(SQUARE, 0.0), SQUARE[:2], PROCESS, (1.0, 0.5))
    with pytest.raises(ArgumentError, match="threshold"):
        memorization(SQUARE, SQUARE, SQUARE, 1.0)
    with pytest.raises(DataError, match="finite"):
        nearest(SQUARE * math.nan, SQUARE, 1)
    with pytest.raises(ArgumentError, match="reach"):
        masses(SQUARE, SQUARE, 0.0)
