"""The shape of trajectories: closed forms of a Gaussian, mean shift on a data set, and paths without a belief as the control."""

from __future__ import annotations

import json
import math

import pytest
import torch

from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import Empirical, Gaussian, SpectralCovariance
from sfumato.explain import slerp
from sfumato.explain.sampling.geometry import answer_gaps, blended, density_ascent, trajectory_geometry, wandering
from sfumato.noise import EDM, VariancePreserving
from sfumato.sample import Trajectory, karras, reference
from sfumato.seeds import noise

PROCESS = EDM(40.0)
TIMES = karras(PROCESS, 41, ratio_min=0.02)[:-1]
VARIANCES = torch.tensor([0.9, 0.3, 0.01], dtype=torch.float64)
LAW = Gaussian(torch.zeros(3, dtype=torch.float64), SpectralCovariance.diagonal(VARIANCES))
POINTS = torch.randn(40, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def gaussian_flow(process=PROCESS, times=TIMES) -> Trajectory:
    x = LAW.through(process, times[0]).sample(8, 0)
    return Trajectory(process, times, tuple(LAW.flow(process, times[0], t)(x) for t in times))


def memory() -> Trajectory:
    x = PROCESS.prior_sample(noise(0, 12, (6,), dtype=torch.float64).draw(0))
    flat = Gaussian(POINTS.mean(0), SpectralCovariance.from_dense(torch.cov(POINTS.T)))
    return reference(Empirical(POINTS).denoiser(PROCESS).denoise, x, PROCESS, flat, TIMES)


def test_a_gaussian_in_closed_form():
    """Deviations, distances and the mean norms from `y_m(k) = sqrt(l + k^2) c_m` alone."""
    path = gaussian_flow()
    found = trajectory_geometry(LAW.denoiser(PROCESS), path)
    k = torch.tensor(found.ratios, dtype=torch.float64)[:, None, None]
    scale = torch.sqrt(VARIANCES + k**2)
    y = scale * (path.states[0] / scale[0])
    chord = torch.nn.functional.normalize(y[0] - y[-1], dim=-1)
    away = y - y[-1]
    off = (away - (away * chord).sum(-1, keepdim=True) * chord).norm(dim=-1) / (y[0] - y[-1]).norm(dim=-1)
    assert found.deviations == pytest.approx(off.mean(1).tolist(), abs=1e-12)
    answer = VARIANCES / (VARIANCES + k**2) * y
    assert found.answer_distances == pytest.approx((answer - y[-1]).norm(dim=-1).mean(1).tolist(), rel=1e-9)
    assert found.norms == pytest.approx(y.norm(dim=-1).mean(1).tolist(), rel=1e-12)
    assert found.shrinking == 1.0


def test_one_variance_is_a_straight_line():
    """Isotropic: the flow only rescales, so nothing leaves the chord and the step points along it."""
    law = Gaussian(torch.zeros(3, dtype=torch.float64), SpectralCovariance.isotropic(3, 0.5))
    x = law.through(PROCESS, 1.0).sample(4, 0)
    found = trajectory_geometry(law.denoiser(PROCESS), Trajectory(PROCESS, TIMES, tuple(law.flow(PROCESS, 1.0, t)(x) for t in TIMES)))
    assert max(found.deviations) < 1e-12
    assert max(found.angles) < 1e-3
    assert found.states.centred[0] == pytest.approx(1.0, abs=1e-12)


def test_the_process_does_not_matter():
    """The same ratios under a variance-preserving process give the same report: all is measured in x / alpha."""
    vp = VariancePreserving()
    times = tuple(float(vp.time_of_ratio(40 * t)) for t in TIMES)
    here = gaussian_flow()
    there = Trajectory(vp, times, tuple(float(vp.alpha(t)) * x for t, x in zip(times, here.states, strict=True)))
    a, b = trajectory_geometry(LAW.denoiser(PROCESS), here), trajectory_geometry(LAW.denoiser(vp), there)
    assert a.deviations == pytest.approx(b.deviations, abs=1e-9)
    assert a.answer_distances == pytest.approx(b.answer_distances, rel=1e-6)


def test_curvature_of_a_circle():
    """Nodes on a circle of radius 2 have curvature 1/2, to the order of the grid."""
    angle = torch.linspace(0, 2.5, 400, dtype=torch.float64)
    ring = 2 * torch.stack([angle.cos(), angle.sin(), 0 * angle], 1)
    states = tuple(torch.stack([p, 3 * p]) for p in ring)
    found = trajectory_geometry(LAW.denoiser(PROCESS), Trajectory(PROCESS, tuple(torch.linspace(1, 0.1, 400).tolist()), states))
    assert found.curvatures == pytest.approx([(1 / 2 + 1 / 6) / 2] * 398, rel=1e-4)


def test_data_sets_are_climbed_and_wandering_is_not_straight():
    """Mean shift and Euler steps never lower the kernel density; random directions leave the chord and do not shrink."""
    path, belief = memory(), Empirical(POINTS).denoiser(PROCESS)
    assert density_ascent(Empirical(POINTS), path) == (1.0, 1.0)
    found, lost = (trajectory_geometry(belief, p) for p in (path, wandering(path)))
    assert found.numbers["largest_deviation"] < 0.05
    assert lost.numbers["largest_deviation"] > 0.3
    assert found.aimless == pytest.approx(lost.deviations)
    assert found.shrinking > 0.8 > lost.shrinking
    nearest = torch.cdist(path.end, POINTS).min(1).values
    assert float(nearest.max()) < 0.02 * 6


def test_answer_gaps_are_zero_for_one_belief_and_known_for_two():
    """Two Gaussians of different variance differ by a known gain."""
    path = gaussian_flow()
    assert max(answer_gaps(LAW.denoiser(PROCESS), LAW.denoiser(PROCESS), path)) == 0
    wide = Gaussian(torch.zeros(3, dtype=torch.float64), SpectralCovariance.diagonal(2 * VARIANCES))
    gaps = answer_gaps(LAW.denoiser(PROCESS), wide.denoiser(PROCESS), path)
    k = 40 * TIMES[20]
    gain = VARIANCES / (VARIANCES + k**2) - 2 * VARIANCES / (2 * VARIANCES + k**2)
    assert gaps[20] == pytest.approx(float((gain * path.states[20]).square().sum(1).mean().sqrt()), rel=1e-9)


def test_blends_of_noise_are_noise():
    """Means over 200 pairs of 100 numbers; the plain blend is the control, at 1/sqrt(2)."""
    pairs = noise(0, 400, (100,), dtype=torch.float64).draw(0).split(2)
    w = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    norms = torch.stack([blended(a, b, w).norm(dim=1) for a, b in pairs]).mean(0) / 10
    assert torch.allclose(norms, torch.ones(3, dtype=torch.float64), atol=0.02)
    arcs = torch.stack([slerp(a, b, w).norm(dim=1) for a, b in pairs]).mean(0) / 10
    assert torch.allclose(norms, arcs, atol=0.02)
    plain = sum(float((a + b).norm()) / 2 for a, b in pairs) / 2000
    assert plain == pytest.approx(1 / math.sqrt(2), abs=0.02)
    assert torch.equal(blended(*pairs[0], w)[0], pairs[0][0])
    with pytest.raises(ShapeError):
        blended(torch.zeros(2), torch.zeros(3), w)


def test_the_explanation_speaks_plots_and_is_plain_data():
    from matplotlib.figure import Figure

    found = trajectory_geometry(LAW.denoiser(PROCESS), gaussian_flow())
    ax = Figure().add_subplot()
    found.plot(ax)
    assert next(line.get_label() for line in ax.get_lines()) == "trajectories"
    data = found.to_dict()
    json.dumps(data)
    assert f"{max(found.deviations):.2%}" in found.meaning
    assert data["numbers"]["largest_deviation"] == pytest.approx(max(found.deviations))


def test_bad_input_is_refused():
    path = gaussian_flow()
    with pytest.raises(ArgumentError, match="at least 4 nodes of at least 2 paths"):
        trajectory_geometry(LAW.denoiser(PROCESS), path[:1])
    with pytest.raises(ArgumentError, match="at least 4 nodes"):
        wandering(Trajectory(PROCESS, path.times[:3], path.states[:3]))
