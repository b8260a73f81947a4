"""The grid solver keeps mass and sign, converges to known densities at first order, and is Ito's."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact.diffusions.fokker_planck import Line, LineDensity, fokker_planck


def steps(n, end):
    return torch.linspace(0, end, n + 1, dtype=torch.float64).tolist()


def normal(line, mean, std):
    return LineDensity(line, torch.exp(-0.5 * ((line.centres - mean) / std) ** 2))


def test_ornstein_uhlenbeck_converges_to_its_gaussian_at_first_order():
    """dx = -x dt + sqrt(2 q) dW from N(1, 0.5^2): mean e^-t, variance q + (0.25 - q) e^-2t; halving both steps halves the error."""
    end, q = 0.7, 0.3
    mean, var = math.exp(-end), q + (0.25 - q) * math.exp(-2 * end)
    errors = []
    for n in (1, 2, 4):
        line = Line(-5.0, 5.0, 250 * n)
        out = fokker_planck(normal(line, 1.0, 0.5), steps(50 * n, end), lambda x, t: -x, lambda x, t: torch.full_like(x, q))
        exact = normal(line, mean, math.sqrt(var))
        errors.append(float((out.values - exact.values).abs().sum()) * line.width)
    assert errors[2] < 0.02
    for coarse, fine in pairwise(errors):
        assert 0.85 < math.log2(coarse / fine) < 1.15


def test_noise_that_depends_on_place_is_itos():
    """dx = sqrt(2 c) x dW is a martingale in Ito's sense: the mean stays and E x^2 grows as e^(2 c t). Stratonovich's mean would grow."""
    line, c, end = Line(-10.0, 14.0, 2400), 0.05, 1.0
    start = normal(line, 1.0, 0.3)
    out = fokker_planck(start, steps(400, end), lambda x, t: torch.zeros_like(x), lambda x, t: c * x**2)
    assert abs(out.mean - 1.0) < 1e-4
    assert out.std**2 + out.mean**2 == pytest.approx((start.std**2 + start.mean**2) * math.exp(2 * c * end), rel=2e-3)
    stratonovich = fokker_planck(start, steps(400, end), lambda x, t: c * x, lambda x, t: c * x**2)
    assert abs(stratonovich.mean - 1.0) > 0.04


def test_mass_and_sign_are_kept_at_any_step_also_without_noise():
    line = Line(-2.0, 2.0, 80)
    out = fokker_planck(normal(line, 1.5, 0.2), [0.0, 10.0, 11.0], lambda x, t: torch.sin(9 * x), lambda x, t: (x - 0.5).clamp(min=0))
    assert float(out.values.min()) >= 0
    assert float(out.cdf[-1]) == pytest.approx(1, abs=1e-12)


def test_a_double_well_comes_to_rest_in_the_boltzmann_density():
    """drift -U', constant q: the stationary density is exp(-U/q)."""
    line, q = Line(-3.0, 3.0, 3000), 0.5
    out = fokker_planck(normal(line, 0.0, 1.0), steps(60, 200.0), lambda x, t: x - x**3, lambda x, t: torch.full_like(x, q))
    rest = LineDensity(line, torch.exp((line.centres**2 / 2 - line.centres**4 / 4) / q))
    assert float((out.values - rest.values).abs().sum()) * line.width < 3e-3


def test_falling_times_mean_the_same():
    line = Line(-3.0, 3.0, 60)
    seen = []

    def drift(x, t):
        seen.append(t)
        return -x

    up = fokker_planck(normal(line, 0.5, 0.4), [0.0, 0.1, 0.3], drift, lambda x, t: torch.ones_like(x))
    down = fokker_planck(normal(line, 0.5, 0.4), [1.0, 0.9, 0.7], drift, lambda x, t: torch.ones_like(x))
    torch.testing.assert_close(up.values, down.values)
    assert seen == [0.1, 0.3, 0.9, 0.7]


def test_quantiles_invert_the_distribution_function_and_masses_add_up():
    density = normal(Line(-4.0, 4.0, 800), 0.3, 0.7)
    level = torch.tensor([0.0, 0.01, 0.5, 0.9, 1.0], dtype=torch.float64)
    places = density.quantile(level)
    torch.testing.assert_close(torch.tensor([density.mass(-4.0, float(x)) for x in places], dtype=torch.float64), level)
    assert density.mass(-1.0, 0.123) + density.mass(0.123, 1.0) == pytest.approx(density.mass(-1.0, 1.0))
    assert density.mass(0.3 - 0.7, 0.3 + 0.7) == pytest.approx(math.erf(2**-0.5), abs=1e-5)


def test_bad_input():
    line = Line(-1.0, 1.0, 10)
    flat, zero = LineDensity(line, torch.ones(10)), lambda x, t: torch.zeros_like(x)
    with pytest.raises(ArgumentError, match="cells"):
        Line(1.0, -1.0, 10)
    with pytest.raises(ShapeError, match="cell"):
        LineDensity(line, torch.ones(11))
    with pytest.raises(ArgumentError, match="density"):
        LineDensity(line, -torch.ones(10))
    with pytest.raises(ArgumentError, match="times"):
        fokker_planck(flat, [0.0, 0.2, 0.1], zero, zero)
    with pytest.raises(ArgumentError, match="noise"):
        fokker_planck(flat, [0.0, 0.1], zero, lambda x, t: -torch.ones_like(x))
