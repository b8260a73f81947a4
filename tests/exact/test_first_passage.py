"""Absorbing bounds: conservation of probability, the classical probability of error, the heat equation, images, and a simulation."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from sfumato.errors import ArgumentError
from sfumato.exact import DriftDiffusion

F64 = torch.float64
MODEL = DriftDiffusion(0.4, 0.8, -1.0, 1.5)


def test_probability_is_conserved():
    """What is inside at t = 0.9, plus what has left at either bound by then, is 1."""
    nodes, weights = np.polynomial.legendre.leggauss(200)
    x = torch.tensor(-1 + 2.5 * (nodes + 1) / 2)
    inside = float((MODEL.density(x, 0.9, 0.2) * torch.tensor(weights)).sum()) * 1.25
    left = sum(quad(lambda t, u=u: MODEL.first_passage(t, 0.2, upper=u), 1e-3, 0.9)[0] for u in (False, True))
    # before 1e-3 less than 1e-100 has left
    assert inside + left == pytest.approx(1, abs=1e-8)


def test_choice_probability_is_the_textbook_one():
    """P(lower first) = (e^{-2 v b/s^2} - e^{-2 v x/s^2}) / (e^{-2 v b/s^2} - e^{-2 v a/s^2})."""
    share = quad(lambda t: MODEL.first_passage(t, 0.2), 1e-3, 60, limit=400)[0]
    k = 2 * 0.4 / 0.64
    expected = (math.exp(-k * 1.5) - math.exp(-k * 0.2)) / (math.exp(-k * 1.5) - math.exp(k))
    assert share == pytest.approx(expected, abs=1e-7)


def test_short_times_are_the_method_of_images():
    """An independent expansion: at t = 0.15 three images on either side are exact to 1e-12."""
    x, t, s2, L = torch.linspace(-0.9, 1.4, 7, dtype=F64), 0.15, 0.64, 2.5
    total = sum(
        torch.exp(-((x - 0.2 - 2 * n * L) ** 2) / (2 * s2 * t)) - torch.exp(-((x + 0.2 + 2 - 2 * n * L) ** 2) / (2 * s2 * t))
        for n in range(-3, 4)
    ) / math.sqrt(2 * math.pi * s2 * t)
    tilt = torch.exp(0.4 * (x - 0.2) / s2 - 0.16 * t / (2 * s2))
    torch.testing.assert_close(MODEL.density(x, t, 0.2), tilt * total, rtol=0, atol=1e-12)


def test_the_two_expansions_of_the_passage_agree():
    """Images below s^2 t = 0.3 L^2, the series above it: no jump where they meet."""
    t = 0.3 * 2.5**2 / 0.64
    for upper in (False, True):
        below, above = (MODEL.first_passage(u, 0.2, upper=upper) for u in (t * (1 - 1e-9), t * (1 + 1e-9)))
        assert below == pytest.approx(above, rel=1e-7)


def test_conditioned_mean_is_the_integral_of_its_definition():
    """E x_t = int x p(x, t) g(T - t | x) dx / g(T), with the library's own densities, by Gauss-Legendre."""
    nodes, weights = np.polynomial.legendre.leggauss(120)
    x = -1 + 2.5 * (nodes + 1) / 2
    for upper in (False, True):
        density = MODEL.density(torch.tensor(x), 0.5, 0.2).numpy()
        passing = np.array([MODEL.first_passage(0.7, float(y), upper=upper) for y in x])
        expected = 1.25 * (weights * x * density * passing).sum() / MODEL.first_passage(1.2, 0.2, upper=upper)
        assert float(MODEL.conditioned_mean(torch.tensor([0.5], dtype=F64), 0.2, 1.2, upper=upper)) == pytest.approx(expected, abs=1e-9)


def test_drift_cancels_and_small_noise_straightens():
    """The conditioned mean does not depend on v; its distance to the straight line falls with s, and is not small at s = 1."""
    t = torch.linspace(0.1, 0.9, 9, dtype=F64)
    means = [DriftDiffusion(v, 1.0).conditioned_mean(t, 0.5, 1.0) for v in (0.0, 2.0)]
    torch.testing.assert_close(*means, rtol=0, atol=1e-12)
    bends = [float((DriftDiffusion(0.1, s).conditioned_mean(t, 0.5, 1.0) - (0.5 - 1.5 * t)).abs().max()) for s in (1.0, 0.5, 0.25)]
    assert bends[0] > 0.3
    assert bends[0] > 2 * bends[1] > 4 * bends[2]


def test_density_obeys_the_fokker_planck_equation_and_vanishes_outside():
    """dp/dt = -v p' + s^2/2 p'' by central differences, second order: 1e-4 at h = 1e-3."""
    h, x, t = 1e-3, torch.tensor([0.1, 0.7], dtype=F64), 0.5

    def p(y, u):
        return MODEL.density(y, u, 0.2)

    rate = (p(x, t + h) - p(x, t - h)) / (2 * h)
    slope, bend = (p(x + h, t) - p(x - h, t)) / (2 * h), (p(x + h, t) - 2 * p(x, t) + p(x - h, t)) / h**2
    torch.testing.assert_close(rate, -0.4 * slope + 0.32 * bend, rtol=0, atol=1e-5)
    assert float(p(torch.tensor([2.0], dtype=F64), t)) == 0


def test_bad_input():
    with pytest.raises(ArgumentError, match="noise"):
        DriftDiffusion(0.0, 0.0)
    with pytest.raises(ArgumentError, match="start"):
        MODEL.first_passage(1.0, 2.0)
    with pytest.raises(ArgumentError, match="positive time"):
        MODEL.first_passage(0.0, 0.0)
    with pytest.raises(ArgumentError, match="cancellation"):
        MODEL.conditioned_mean(torch.tensor([5e-4], dtype=F64), 0.5, 1e-3)
    for end in (0.0, 1.0):
        with pytest.raises(ArgumentError, match="times"):
            MODEL.conditioned_mean(torch.tensor([end], dtype=F64), 0.0, 1.0)


@pytest.mark.parametrize("upper", [False, True])
def test_a_path_that_stays_long_forgets_both_ends(upper):
    """In the middle of a long stay its density is that of `phi_1^2`, whose mean is the centre 0.25; near an end only the time to it counts.

    The second mode dies by `e^{-3 r_1 t}`, `r_1 = 0.505`: to 1e-16 within 25. The first alone is below 1e-308 from 1,500 on.
    """
    means = []
    for end in (60.0, 1e4):
        at = torch.tensor([0.3, 2.0, end / 2, end - 2.0, end - 0.3], dtype=F64)
        means.append(MODEL.conditioned_mean(at, 0.2, end, upper=upper))
    torch.testing.assert_close(means[1], means[0], rtol=0, atol=1e-11)
    assert float(means[1][2]) == pytest.approx(0.25, abs=1e-12)
    assert (means[1][-1] > 0.8) if upper else (means[1][-1] < -0.3)
