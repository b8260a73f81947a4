"""Diffusions on a few cells against their generators written out densely, and a piecewise constant density against sums."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.linalg import expm

from sfumato.errors import ArgumentError
from sfumato.exact import DriftDiffusion, Line, LineDensity, ReversibleLine, bridge, fokker_planck, linear_transition, noise_bridge
from sfumato.noise import Affine, FlowMatching, VariancePreserving

F64 = torch.float64
LINE = Line(-0.5, 2.0, 5)
START = LineDensity(LINE, torch.tensor([0.1, 0.7, 0.0, 0.3, 0.4], dtype=F64))


def test_a_line_and_its_density_by_sums():
    width, centres = 0.5, np.array([-0.25, 0.25, 0.75, 1.25, 1.75])
    np.testing.assert_allclose(LINE.faces.numpy(), [-0.5, 0.0, 0.5, 1.0, 1.5, 2.0], atol=1e-15)
    np.testing.assert_allclose(LINE.centres.numpy(), centres, atol=1e-15)
    values = np.array([0.1, 0.7, 0.0, 0.3, 0.4]) / (1.5 * width)
    np.testing.assert_allclose(START.values.numpy(), values, rtol=1e-14)
    mean = (values * centres).sum() * width
    assert START.mean == pytest.approx(mean, rel=1e-14)
    assert START.std == pytest.approx(((values * (centres - mean) ** 2).sum() * width) ** 0.5, rel=1e-14)
    np.testing.assert_allclose(START.cdf.numpy(), [0, *np.cumsum(values) * width], atol=1e-15)
    # cells cut on either side, an interval within one cell, beyond both ends, and turned around
    assert START.mass(-0.3, 0.6) == pytest.approx(0.3 * values[0] + 0.5 * values[1] + 0.1 * values[2], rel=1e-13)
    assert START.mass(1.1, 1.2) == pytest.approx(0.1 * values[3], rel=1e-12)
    assert START.mass(-9.0, 9.0) == pytest.approx(1, rel=1e-14)
    assert START.mass(3.0, 9.0) == START.mass(1.0, 0.0) == 0
    levels = torch.tensor([0.0, 0.25, 0.5, 0.9, 1.0], dtype=F64)
    expected = np.interp(levels.numpy(), START.cdf.numpy(), LINE.faces.numpy())
    np.testing.assert_allclose(START.quantile(levels).numpy(), expected, atol=1e-14)
    single = START.quantile(torch.tensor([0.25]))
    np.testing.assert_allclose(single.numpy(), expected[1:2], atol=1e-6)


def drift(x, t):
    """Of either sign on the line, so both upwind directions are met."""
    return (1 + t) * torch.cos(2 * x)


def diffusion(x, t):
    return 0.1 + 0.3 * (x + t) ** 2


def stepped(times):
    """Backward Euler with upwind fluxes through every face, solved densely."""
    density, w = START.values.numpy(), LINE.width
    for before, now in pairwise(times):
        rate = np.zeros((5, 5))
        f, q = drift(LINE.faces, now).numpy(), diffusion(LINE.centres, now).numpy()
        for left in range(4):
            flux = np.zeros(5)
            flux[left], flux[left + 1] = max(f[left + 1], 0) + q[left] / w, min(f[left + 1], 0) - q[left + 1] / w
            rate[left] -= flux / w
            rate[left + 1] += flux / w
        density = np.linalg.solve(np.eye(5) - abs(now - before) * rate, density)
    return density


@pytest.mark.parametrize("times", [[0.0, 0.3], [0.2, 0.3, 0.9], [0.9, 0.3, 0.2]])
def test_a_step_is_the_dense_implicit_one(times):
    out = fokker_planck(START, times, drift, diffusion)
    np.testing.assert_allclose(out.values.numpy(), stepped(times), rtol=1e-12)
    assert float(out.values.sum()) * LINE.width == pytest.approx(1, rel=1e-13)


def log_density(x):
    return torch.sin(2 * x) - x


def test_a_reversible_diffusion_is_the_exponential_of_its_generator():
    """Rates `q / w^2 sqrt(pi_j / pi_i)` between neighbours; `q = 1/2` unless told otherwise; a score by central differences."""
    pi = np.exp(log_density(LINE.centres).numpy())
    for q, line in ((0.5, ReversibleLine(LINE, log_density)), (0.2, ReversibleLine(LINE, log_density, 0.2))):
        rate = np.zeros((5, 5))
        for i in range(5):
            for j in (i - 1, i + 1):
                if 0 <= j < 5:
                    rate[j, i] += q / 0.25 * math.sqrt(pi[j] / pi[i])
                    rate[i, i] -= q / 0.25 * math.sqrt(pi[j] / pi[i])
        for t in (0.0, 0.05, 0.7):
            out = line.density(START, t)
            np.testing.assert_allclose(out.values.numpy(), expm(t * rate) @ START.values.numpy(), rtol=1e-10, atol=1e-14)
        assert np.abs(rate @ pi).max() < 1e-12
    logs = np.log(out.values.numpy())
    score = line.score(out).numpy()
    np.testing.assert_allclose(score[1:-1], (logs[2:] - logs[:-2]) / (2 * 0.5), rtol=1e-12)
    np.testing.assert_allclose(score[[0, -1]], [(logs[1] - logs[0]) / 0.5, (logs[-1] - logs[-2]) / 0.5], rtol=1e-12)


def test_a_score_is_unknown_where_there_is_next_to_no_density():
    line = ReversibleLine(LINE, log_density)
    shares = torch.tensor([1.0, 7.2e-10, 6.0, 5.4e-10, 1.0], dtype=F64)
    score = line.score(LineDensity(LINE, shares))
    # a central difference does not ask the middle
    assert torch.isnan(score).tolist() == [False, False, True, False, True]
    assert bool(torch.isfinite(line.score(LineDensity(LINE, shares.clamp(min=6.3e-10)))).all())


def test_a_linear_transition_is_an_integral_of_exponentials():
    """`e^(A h)`, `int e^(A u) c du` and `int e^(A u) 2 D e^(A u)^T du`, by SciPy; nothing moves in no time."""
    A = torch.tensor([[-0.7, 0.4], [-0.2, 0.3]], dtype=F64)
    c, root = torch.tensor([0.5, -1.0], dtype=F64), torch.tensor([[0.6, 0.0], [0.3, 0.2]], dtype=F64)
    D = root @ root.T
    got = linear_transition(A, c, D, 0.8)

    def of(u):
        return expm(A.numpy() * u)

    def integral(f, i):
        return quad(lambda u: f(u).reshape(-1)[i], 0, 0.8, epsabs=1e-13)[0]

    np.testing.assert_allclose(got.phi.numpy(), of(0.8), rtol=1e-12)
    np.testing.assert_allclose(got.shift.numpy(), [integral(lambda u: of(u) @ c.numpy(), i) for i in range(2)], rtol=1e-11)
    spread = [integral(lambda u: 2 * of(u) @ D.numpy() @ of(u).T, i) for i in range(4)]
    np.testing.assert_allclose(got.covariance.numpy().reshape(-1), spread, rtol=1e-11)
    still = linear_transition(A, c, D, 0)
    assert torch.equal(still.phi, torch.eye(2, dtype=F64))
    assert float(still.shift.abs().max() + still.covariance.abs().max()) == 0


def test_a_bridge_is_the_conditional_of_the_joint_gaussian():
    """Shifts, matrices that do not commute, and an end that is not where the mean would go."""
    A = torch.tensor([[-0.7, 0.4], [-0.2, 0.3]], dtype=F64)
    D = torch.tensor([[0.36, 0.18], [0.18, 0.13]], dtype=F64)
    before = linear_transition(A, torch.tensor([0.5, -1.0], dtype=F64), D, 0.3)
    after = linear_transition(A.T - 0.2, torch.tensor([-0.1, 0.7], dtype=F64), 2 * D, 0.5)
    start, end = torch.tensor([1.0, -0.4], dtype=F64), torch.tensor([0.2, 2.0], dtype=F64)
    mean, covariance = bridge(start, end, before, after)
    precision = torch.linalg.inv(before.covariance) + after.phi.T @ torch.linalg.solve(after.covariance, after.phi)
    here = before.phi @ start + before.shift
    pull = torch.linalg.solve(before.covariance, here) + after.phi.T @ torch.linalg.solve(after.covariance, end - after.shift)
    torch.testing.assert_close(mean, torch.linalg.solve(precision, pull), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(covariance, torch.linalg.inv(precision), rtol=1e-9, atol=1e-12)
    with pytest.raises(ArgumentError, match="singular"):
        bridge(start, end, before, Affine(torch.zeros(2, 2, dtype=F64), after.shift, torch.zeros(2, 2, dtype=F64)))


@pytest.mark.parametrize("process", [VariancePreserving(), FlowMatching()], ids=lambda p: p.kind)
def test_a_noise_bridge_is_bayes_rule_on_events(process):
    """`(2, 3)` events, several times, the ends among them."""
    generator = torch.Generator().manual_seed(0)
    clean, noisy = torch.randn(2, 2, 3, generator=generator, dtype=F64)
    s, u, times = 0.2, 0.7, torch.tensor([0.2, 0.35, 0.6, 0.7], dtype=F64)
    mean, variance = noise_bridge(process, clean, noisy, s, u, times)
    assert mean.shape == (4, 2, 3)
    assert variance.shape == (4,)
    for i in (1, 2):
        first, second = process.transition(s, times[i]), process.transition(times[i], u)
        precision = 1 / first.covariance + second.phi**2 / second.covariance
        pull = first.phi * clean / first.covariance + second.phi * noisy / second.covariance
        torch.testing.assert_close(mean[i], pull / precision, rtol=1e-11, atol=1e-13)
        assert float(variance[i]) == pytest.approx(1 / float(precision), rel=1e-11)
    torch.testing.assert_close(mean[[0, 3]], torch.stack([clean, noisy]), rtol=0, atol=1e-12)
    assert float(variance[[0, 3]].abs().max()) < 1e-14


def test_bounds_are_minus_one_and_one_unless_told_otherwise():
    """No density on and beyond them, and leaving at one is leaving at the other, mirrored."""
    default, given = DriftDiffusion(0.4, 0.8), DriftDiffusion(0.4, 0.8, -1.0, 1.0)
    assert (default.lower, default.upper) == (-1.0, 1.0)
    x = torch.tensor([-1.5, -1.0, 0.3, 1.0, 1.5], dtype=F64)
    assert torch.equal(default.density(x, 0.5, 0.2), given.density(x, 0.5, 0.2))
    assert (default.density(x, 0.5, 0.2) > 0).tolist() == [False, False, True, False, False]
    mirrored = DriftDiffusion(-0.4, 0.8)
    for t in (0.01, 0.2, 2.0, 8.0):
        lower, upper = (default.first_passage(t, 0.2, upper=u) for u in (False, True))
        assert lower == default.first_passage(t, 0.2) == pytest.approx(mirrored.first_passage(t, -0.2, upper=True), rel=1e-12)
        assert upper == pytest.approx(mirrored.first_passage(t, -0.2), rel=1e-12)
        assert lower < upper
    times = torch.tensor([0.1, 0.4], dtype=F64)
    torch.testing.assert_close(default.conditioned_mean(times, 0.2, 1.2), -mirrored.conditioned_mean(times, -0.2, 1.2, upper=True))
    assert bool((default.conditioned_mean(times, 0.2, 1.2) < default.conditioned_mean(times, 0.2, 1.2, upper=True)).all())


def test_a_passage_is_the_flux_out_of_the_density():
    """`g = s^2/2 |dp/dx|` at the bound (p = 0 there), by one-sided differences of the density, on both sides of where images take over."""
    model, h = DriftDiffusion(0.4, 0.8, -1.0, 1.5), 1e-4
    for t in (0.4, 2.0, 3.5):
        for bound, side, upper in ((-1.0, 1, False), (1.5, -1, True)):
            p = model.density(bound + side * h * torch.arange(1.0, 4.0, dtype=F64), t, 0.2)
            slope = float(3 * p[0] - 1.5 * p[1] + p[2] / 3) / h
            assert model.first_passage(t, 0.2, upper=upper) == pytest.approx(0.32 * slope, rel=1e-6)


def test_a_conditioned_mean_does_not_know_the_other_times():
    """The earliest and the latest time need the most modes, whichever of them is nearer to its end."""
    model = DriftDiffusion(0.4, 0.8, -1.0, 1.5)
    for times in ([0.01, 0.6], [0.4, 0.99], [0.01, 0.99]):
        together = model.conditioned_mean(torch.tensor(times, dtype=F64), 0.2, 1.0)
        alone = torch.cat([model.conditioned_mean(torch.tensor([t], dtype=F64), 0.2, 1.0) for t in times])
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-11)
    near = model.conditioned_mean(torch.tensor([1e-3, 0.999], dtype=F64), 0.2, 1.0)
    assert abs(float(near[0]) - 0.2) < 0.01
    assert abs(float(near[1]) + 1) < 0.06
