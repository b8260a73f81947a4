"""Reversible diffusions on the line: an Ornstein-Uhlenbeck process in closed form, stationarity, the general solver."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.errors import ArgumentError
from sfumato.exact.diffusions.fokker_planck import Line, LineDensity, fokker_planck
from sfumato.exact.diffusions.reversible_line import ReversibleLine


def _normal(line: Line, mean: float, variance: float) -> LineDensity:
    return LineDensity(line, torch.exp(-((line.centres - mean) ** 2) / (2 * variance)))


def test_ornstein_uhlenbeck_density_and_score_with_second_order_in_the_width():
    """`dx = -x/2 dt + dw` from `N(1, 0.2)`: `N(e^{-t/2}, 0.2 e^{-t} + 1 - e^{-t})`."""
    t, errors = 0.7, []
    mean, variance = math.exp(-t / 2), 0.2 * math.exp(-t) - math.expm1(-t)
    for cells in (150, 300):
        line = Line(-7.0, 7.0, cells)
        oracle = ReversibleLine(line, lambda x: -(x**2) / 2)
        found = oracle.density(_normal(line, 1.0, 0.2), t)
        assert found.mean == pytest.approx(mean, abs=1e-3)
        off = oracle.score(found) + (line.centres - mean) / variance
        errors.append(float((found.values * off**2).nansum() * line.width) ** 0.5)
    assert errors[1] < 5e-3
    assert errors[0] / errors[1] == pytest.approx(4, abs=0.4)


def test_the_density_stays_and_the_general_solver_agrees():
    line = Line(-4.0, 4.0, 200)
    oracle = ReversibleLine(line, lambda x: -((x**2 - 1) ** 2))
    still = LineDensity(line, torch.exp(-((line.centres**2 - 1) ** 2)))
    torch.testing.assert_close(oracle.density(still, 3.0).values, still.values, rtol=0, atol=1e-10)
    start, times = _normal(line, 0.8, 0.1), torch.linspace(0, 0.3, 301, dtype=torch.float64).tolist()
    slow = fokker_planck(start, times, lambda x, t: -2 * x * (x**2 - 1), lambda x, t: torch.full_like(x, 0.5))
    fast = oracle.density(start, 0.3)
    assert float((slow.values - fast.values).abs().sum() * line.width) < 0.03  # the slow one's first-order error
    assert float((start.values - fast.values).abs().sum() * line.width) > 0.2  # the control: something has happened


def test_bad_input():
    line = Line(-1.0, 1.0, 10)
    with pytest.raises(ArgumentError):
        ReversibleLine(line, lambda x: -(x**2), 0.0)
    with pytest.raises(ArgumentError):
        ReversibleLine(line, lambda x: -1e4 * x**2)
    with pytest.raises(ArgumentError):
        ReversibleLine(line, lambda x: -(x**2)).density(_normal(line, 0.0, 1.0), -1.0)
