"""The adaptive flow's parts: SciPy's tableau, its control of steps written out for one number, its coordinates, what is not finite."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from asymmetric import f64
from scipy.integrate import RK45

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.noise import EDM, FlowMatching, VariancePreserving
from sfumato.sample.continuous import adaptive_ode
from sfumato.sample.continuous.adaptive_ode import Angle, flow, solve


def test_the_tableau_is_that_of_dormand_and_prince():
    """SciPy's RK45, whose last stage is the next step's first, and whose error estimate has the other sign."""
    stages = np.array([[*row, *[0.0] * (6 - len(row))] for row in adaptive_ode._STAGES])
    np.testing.assert_allclose(stages[:6, :5], RK45.A, rtol=1e-15)
    np.testing.assert_allclose(stages[6], RK45.B, rtol=1e-15)
    np.testing.assert_allclose(adaptive_ode._NODES, [*RK45.C, 1.0], rtol=1e-15)
    np.testing.assert_allclose(adaptive_ode._DEFECT, -RK45.E, rtol=1e-13)


def written_out(slope, start, end, y, tolerance):
    """`dy/du = slope(u)`, stepped as Hairer, Norsett & Wanner II.4 say: first 1/100 of the way, then `0.9 E^(-1/5)` times as much as last
    time, but 1/5 to 10 times, and no more than what is left. Returns the end and how many steps were tried."""
    u, h, tries = start, (end - start) / 100, 0
    nodes = np.append(RK45.C, 1.0)
    while u != end:
        tries += 1
        k = slope(u + nodes * h)
        new = y + h * float(RK45.B @ k[:6])
        error = abs(h * float(RK45.E @ k)) / (tolerance * (1 + max(abs(y), abs(new))))
        if error <= 1:
            u, y = end if abs(h) >= abs(end - u) else u + h, new
        h *= 10.0 if error == 0 else min(10.0, max(0.2, 0.9 * error**-0.2))
        h = h if abs(h) <= abs(end - u) else end - u
    return y, tries


SLOPES = (
    lambda u: np.cos(9 * u) / 4,
    lambda u: 30 * np.exp(-((u - 0.6) ** 2) / 0.002),  # a narrow hill: steps are thrown away there
    lambda u: 0 * u,  # no error at all
    lambda u: 2e3 * np.sin(3 * u),
)


@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (1.2, -0.1)])
def test_every_row_has_its_own_steps_which_are_those_of_the_book(start, end):
    tolerance, y = 1e-5, (0.3, -0.7, 2.0, 5.0)

    def rate(u, _):
        return torch.stack([torch.from_numpy(np.asarray(s(v))) for s, v in zip(SLOPES, u.numpy(), strict=True)])[:, None]

    alone = [written_out(s, start, end, v, tolerance) for s, v in zip(SLOPES, y, strict=True)]
    solved = solve(rate, f64(*y)[:, None], start, end, tolerance)
    torch.testing.assert_close(solved.end[:, 0], f64(*(v for v, _ in alone)), rtol=1e-12, atol=1e-12)
    # the first slope, and six a step that was tried
    assert solved.evaluations.tolist() == [1 + 6 * tries for _, tries in alone]
    # steps of 0.01, 0.1 and the rest
    assert alone[2][1] == 3
    enough = max(tries for _, tries in alone)
    assert solve(rate, f64(*y)[:, None], start, end, tolerance, enough).converged.tolist() == [True] * 4
    assert solve(rate, f64(*y)[:, None], start, end, tolerance, enough - 1).converged.tolist() == [tries < enough for _, tries in alone]


def test_the_worst_coordinate_sets_the_step():
    """A row of one hard and many easy numbers takes the steps of the hard one alone."""
    hard, row = torch.ones(1, 1, dtype=torch.float64), torch.cat([torch.ones(1, 1), torch.zeros(1, 99)], 1).to(torch.float64)
    alone, among = (solve(lambda u, y: -50 * y * torch.cos(u)[:, None], y, 0.0, 1.0, 1e-7) for y in (hard, row))
    assert torch.equal(alone.evaluations, among.evaluations)
    torch.testing.assert_close(among.end[:, :1], alone.end, rtol=1e-14, atol=0)


def test_a_row_that_is_not_finite_ends_and_leaves_the_others_alone():
    """It is found out at its first step, of seven evaluations."""

    def rate(u, y):
        return torch.where(y > 1.5, math.nan, -y)

    solved = solve(rate, f64(2.0, 1.0)[:, None], 0.0, 1.0, 1e-9)
    assert solved.converged.tolist() == [False, True]
    assert float(solved.end[1]) == pytest.approx(math.exp(-1), rel=1e-9)
    assert float(solved.end[0]) == 2
    assert int(solved.evaluations[0]) == 7


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_least_tolerance_is_fifty_roundings(dtype):
    y, least = torch.ones(1, 1, dtype=dtype), 50 * torch.finfo(dtype).eps
    solve(lambda u, y: -y, y, 0.0, 1e-3, least, 1)
    with pytest.raises(ArgumentError, match="tolerance"):
        solve(lambda u, y: -y, y, 0.0, 1e-3, math.nextafter(least, 0), 1)


def test_angles():
    """`sigma / alpha` is the angle's tangent, and `sqrt(alpha^2 + sigma^2)` the size; each time from its own angle, to the last one."""
    exploding, straight = Angle(EDM(20.0)), Angle(FlowMatching())
    assert exploding.of(0.3) == pytest.approx(math.atan(6), rel=1e-14)
    assert exploding.size(0.3) == pytest.approx(math.sqrt(37), rel=1e-14)
    assert straight.of(0.3) == pytest.approx(math.atan(3 / 7), rel=1e-14)
    assert straight.size(0.3) == pytest.approx(math.sqrt(0.58), rel=1e-14)
    assert straight.of(1.0) == pytest.approx(math.pi / 2, rel=1e-15)
    for process in (EDM(20.0), FlowMatching(), VariancePreserving()):
        angle = Angle(process)
        for t in (1e-3, 0.4, 1.0):
            assert float(angle.time(f64(angle.of(t)))) == pytest.approx(t, rel=1e-9)


def test_the_flow_of_a_belief_that_is_its_condition():
    """`x_s = alpha_s c + (sigma_s / sigma_t) (x_t - alpha_t c)`: the condition reaches the belief, sample by sample, both ways."""

    class Told(Denoiser):
        process = VariancePreserving()

        def denoise(self, x, t, condition=None):
            return condition.expand(x.shape)

    x, c, process = f64(0.3, -2.0).reshape(2, 1, 1), f64(1.0, 0.2).reshape(2, 1, 1), Told.process
    for t, s in ((0.2, 1.0), (1.0, 0.1)):
        found = flow(Told(), x, t, s, condition=c, tolerance=1e-7)
        exact = process.alpha(s) * c + process.sigma(s) / process.sigma(t) * (x - process.alpha(t) * c)
        torch.testing.assert_close(found.end, exact, rtol=1e-5, atol=1e-5)
        assert found.converged.all()
