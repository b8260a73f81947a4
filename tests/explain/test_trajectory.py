"""Trajectory shapes: closed forms of Gaussians, agreement with principal components from NumPy, invariances, bad input."""

import json
import math

import numpy as np
import pytest
import torch

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError, DataError, ShapeError
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.explain import path_shape, rotation_remainder, trajectory_report
from sfumato.noise import EDM, Cosine, FlowMatching, VariancePreserving
from sfumato.sample import Trajectory, reference_times
from sfumato.seeds import noise

F64 = torch.float64


def flow_of(law, process, times, n=8, seed=0):
    x = process.prior_sample(noise(seed, n, law.event_shape, dtype=F64).draw(0))
    return Trajectory(process, times, tuple(law.flow(process, times[0], t)(x) for t in times))


def test_the_remainder_is_what_a_gaussian_mode_has_beyond_the_rotation():
    """Against sqrt(a^2 + b^2) - a - b to rounding, and its bound (2 - sqrt 2) max(a, b), met where a = b."""
    phi = torch.linspace(0, math.pi / 2, 101, dtype=F64)
    lam = torch.tensor([0.0, 0.01, 1.0, 7.0], dtype=F64)[:, None]
    a, b = phi.cos() * lam.sqrt(), phi.sin().expand(4, -1)
    r = rotation_remainder(phi.cos(), phi.sin(), lam)
    torch.testing.assert_close(r, torch.sqrt(a**2 + b**2) - a - b, rtol=0, atol=1e-15)
    assert bool((r.abs() <= (2 - math.sqrt(2)) * torch.maximum(a, b) + 1e-15).all())
    at_emergence = rotation_remainder(torch.tensor(0.6, dtype=F64), torch.tensor(0.8, dtype=F64), torch.tensor(16 / 9, dtype=F64))
    assert float(at_emergence) == pytest.approx(-(2 - math.sqrt(2)) * 0.8, abs=1e-15)
    # without cancellation, where the difference of the direct formula has lost all digits
    tiny = rotation_remainder(torch.tensor(1.0, dtype=F64), torch.tensor(1e-20, dtype=F64), torch.tensor(1.0, dtype=F64))
    assert float(tiny) == pytest.approx(-1e-20, rel=1e-12)


@pytest.mark.parametrize("process", [VariancePreserving(), EDM(), FlowMatching(), Cosine()], ids=lambda p: p.kind)
def test_shapes_are_the_same_under_every_process_at_the_same_ratios(full_gaussian, process):
    """In variance-preserving coordinates a path depends on the ratios it visits alone."""
    ratios = torch.logspace(1, -3, 20, dtype=F64)

    def report(process):
        times = tuple(process.time_of_ratio(ratios).tolist())
        k = float(process.ratio(times[0]))
        x = noise(0, 4, (3, 4), dtype=F64).draw(0) * float(process.sigma(times[0])) * math.sqrt(1 + k**2) / k
        path = Trajectory(process, times, tuple(full_gaussian.flow(process, times[0], t)(x) for t in times))
        return trajectory_report(path)

    ours, theirs = report(process), report(VariancePreserving())
    assert ours.states.planar == pytest.approx(theirs.states.planar, abs=1e-6)
    assert ours.states.outside == pytest.approx(theirs.states.outside, abs=1e-6)
    assert ours.residuals == pytest.approx(theirs.residuals, abs=1e-6)
    assert ours.angles == pytest.approx(theirs.angles, abs=1e-4)


def test_null_modes_rotate_exactly_and_one_mode_leaves_the_remainder():
    """A law without variance moves in a straight line of its plane; for one mode the residual is the closed form's."""
    process = Cosine()
    times = tuple(torch.linspace(1, 0, 30, dtype=F64).tolist())
    flat = Gaussian(torch.ones(5, dtype=F64), SpectralCovariance.diagonal(torch.zeros(5, dtype=F64)))
    still = trajectory_report(flow_of(flat, process, times))
    assert max(still.residuals) < 1e-12
    assert still.states.outside < 1e-12
    one = Gaussian(torch.zeros(1, dtype=F64), SpectralCovariance.diagonal(torch.full((1,), 2.0, dtype=F64)))
    report = trajectory_report(flow_of(one, process, times))
    phi = torch.atan2(*(f(torch.tensor(times, dtype=F64)) for f in (process.sigma, process.alpha)))
    r = rotation_remainder(phi.cos(), phi.sin(), torch.tensor(2.0, dtype=F64))
    size = torch.sqrt(2 * phi.cos() ** 2 + phi.sin() ** 2)
    assert report.residuals == pytest.approx((r.abs() / size).tolist(), abs=1e-12)


def test_shares_are_principal_components_and_ignore_rotations_of_the_space():
    z = noise(0, 3, (7, 5), dtype=F64).draw(0)
    shape = path_shape(z)
    energies = []
    for path in z.numpy():
        energy = np.linalg.eigvalsh(np.cov(path.T, bias=True))[::-1]
        energies.append(energy / energy.sum())
    assert shape.centred == pytest.approx(np.mean(energies, 0).tolist(), abs=1e-12)
    turn, _ = torch.linalg.qr(noise(1, 1, (5, 5), dtype=F64).draw(0)[0])
    turned = path_shape(z @ turn)
    assert turned.centred == pytest.approx(shape.centred, abs=1e-12)
    assert turned.outside == pytest.approx(shape.outside, abs=1e-12)


def test_flows_are_planar_and_noising_paths_are_not(full_gaussian):
    """The control: the same ends, walked by the noising process; and a list of states is a trajectory."""
    process = VariancePreserving()
    path = flow_of(full_gaussian, process, reference_times(process, 30), 16)
    report = trajectory_report(path, denoiser=full_gaussian.denoiser(process), law=full_gaussian)
    assert report.gaussian.centred == pytest.approx(report.states.centred, abs=1e-12)
    assert report.states.planar > 0.98
    assert report.forward.planar < 0.8
    assert report.angles[-1] == pytest.approx(report.rotated[-1], abs=1e-9)
    listed = trajectory_report(list(path.states), path.times, process)
    assert listed.states == report.states
    assert "plane" in report.meaning
    json.dumps(report.to_dict(), allow_nan=False)


def test_the_increments_and_answers_are_measured_too(full_gaussian):
    process = EDM()
    path = flow_of(full_gaussian, process, reference_times(process, 12), 2)
    report = trajectory_report(path, denoiser=full_gaussian.denoiser(process))
    z = torch.stack([x.flatten(1) / math.hypot(1, 80 * t) for x, t in zip(path.states, path.times, strict=True)], 1)
    assert report.increments.centred == pytest.approx(path_shape(z.diff(dim=1)).centred, abs=1e-12)
    # the Gaussian's answer in mode k is m + alpha l / (alpha^2 l + sigma^2) of the centred state
    said = [full_gaussian.posterior_mean(x, process, t).flatten(1) for x, t in zip(path.states, path.times, strict=True)]
    assert report.denoised.uncentred == pytest.approx(path_shape(torch.stack(said, 1)).uncentred, abs=1e-9)


def test_the_picture_has_the_models_line_the_gaussians_and_the_control(full_gaussian):
    from matplotlib.figure import Figure

    process = EDM()
    ax = Figure().subplots()
    trajectory_report(flow_of(full_gaussian, process, reference_times(process, 12)), law=full_gaussian).plot(ax)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["model", "Gaussian flow", "noising paths"]
    assert ax.get_xlabel()
    assert ax.get_ylabel()


def test_bad_input_is_refused_by_name(full_gaussian):
    process = EDM()
    path = flow_of(full_gaussian, process, reference_times(process, 6), 2)
    with pytest.raises(ArgumentError, match="ts, process"):
        trajectory_report(path, path.times, process)
    with pytest.raises(ArgumentError, match="ts, process"):
        trajectory_report(list(path.states))
    with pytest.raises(ArgumentError, match="falling"):
        trajectory_report(list(path.states), path.times[::-1], process)
    with pytest.raises(ArgumentError, match="three states"):
        trajectory_report(list(path.states[:2]), path.times[:2], process)
    with pytest.raises(ShapeError, match="xs"):
        trajectory_report([*path.states[:-1], path.states[-1][:1]], path.times, process)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_states_and_answers_that_are_not_finite_are_named(full_gaussian, value):
    process, times = EDM(), (0.5, 0.25, 0.1, 0.0)
    x = full_gaussian.through(process, 0.5).sample(3, 0)
    states = [full_gaussian.flow(process, 0.5, t)(x) for t in times]

    class Broken(Denoiser):
        def denoise(self, x, t, condition=None):
            return torch.full_like(x, value)

    broken = Broken()
    broken.process = process
    with pytest.raises(DataError, match="answers"):
        trajectory_report(states, times, process, denoiser=broken)
    with pytest.raises(DataError, match="states"):
        trajectory_report([*states[:-1], torch.full_like(x, value)], times, process)
