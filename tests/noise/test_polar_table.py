"""Processes from a table of radii and angles: between nodes both are linear in time."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.noise import PolarTable, Trigonometric

HALF = math.pi / 2
TABLE = PolarTable((1.0, 1.5, 0.8, 1.0), (HALF, 1.2, 0.5, 0.0))
T = torch.tensor([0.05, 0.3, 0.4, 0.6, 0.7, 0.99], dtype=torch.float64)


def test_a_quarter_of_a_circle_is_the_trigonometric_process():
    circle, same = PolarTable((1.0, 1.0, 1.0), (HALF, HALF / 2, 0.0)), Trigonometric()
    for name in ("alpha", "sigma", "half_log_snr", "alpha_rate", "sigma_rate", "drift", "diffusion_squared"):
        torch.testing.assert_close(getattr(circle, name)(T), getattr(same, name)(T), rtol=1e-12, atol=1e-14)
    assert (float(circle.alpha(1.0)), float(circle.sigma(0.0))) == (0.0, 0.0)


def test_levels_and_rates_between_the_nodes_by_hand():
    """On the second of three cells `r = 1.5 - 0.7 p` and `theta = 1.2 - 0.7 p`, with `p = 3 t - 1`."""
    for t in (0.4, 0.5, 0.6):
        p = 3 * t - 1
        r, angle = 1.5 - 0.7 * p, 1.2 - 0.7 * p
        alpha, sigma = r * math.sin(angle), r * math.cos(angle)
        alpha_rate = -2.1 * math.sin(angle) - 2.1 * r * math.cos(angle)
        sigma_rate = -2.1 * math.cos(angle) + 2.1 * r * math.sin(angle)
        drift = alpha_rate / alpha
        found = [float(v) for v in (*TABLE.levels(t), TABLE.alpha_rate(t), TABLE.sigma_rate(t), TABLE.drift(t), TABLE.diffusion_squared(t))]
        expected = [alpha, sigma, alpha_rate, sigma_rate, drift, 2 * sigma * (sigma_rate - drift * sigma)]
        assert found == pytest.approx(expected, rel=1e-12)
        assert float(TABLE.half_log_snr(t)) == pytest.approx(math.log(alpha / sigma), rel=1e-12)


def test_time_inverts_the_log_snr_in_every_cell_and_at_both_ends():
    torch.testing.assert_close(TABLE.time(TABLE.half_log_snr(T)), T, rtol=1e-12, atol=0)
    assert float(TABLE.time(math.inf)) == 0
    assert float(TABLE.time(-math.inf)) == pytest.approx(1, abs=1e-15)
    nodes = torch.tensor([1 / 3, 2 / 3], dtype=torch.float64)
    torch.testing.assert_close(TABLE.levels(nodes)[0], torch.tensor([1.5 * math.sin(1.2), 0.8 * math.sin(0.5)], dtype=torch.float64))
