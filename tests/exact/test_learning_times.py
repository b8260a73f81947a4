"""Emergence times: exact crossings of curves whose crossing is known, and the spectral law of the linear theory."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.errors import ArgumentError, DataError, ShapeError
from sfumato.exact.learning.learning_times import learning_times
from sfumato.exact.learning.linear_learning import OneLayer
from sfumato.metrics import fit_rate

TIMES = torch.tensor([0.0, 1.0, 2.0, 4.0, 8.0, 16.0], dtype=torch.float64)


def power(first, last):
    """Log-variance linear in log time from time 1 to 16, constant before."""
    share = torch.log(TIMES.clamp(min=1.0)) / math.log(16)
    return math.log(first) + share * (math.log(last) - math.log(first))


def curves(*pairs):
    return torch.exp(torch.stack([power(a, b) for a, b in pairs], 1)), torch.tensor([b for _, b in pairs], dtype=torch.float64)


@pytest.mark.parametrize(
    ("halfway", "rising", "falling"),
    [
        ("geometric", 4.0, 4.0),
        ("harmonic", 16 ** (math.log(32 / 17) / math.log(16)), 16 ** (math.log(16 / (32 / 17)) / math.log(16))),
        ("band", 16 ** (math.log(0.8 * 16) / math.log(16)), 16 ** (math.log(16 / 1.2) / math.log(16))),
    ],
)
def test_crossings_of_power_laws_are_exact(halfway, rising, falling):
    variances, targets = curves((1.0, 16.0), (16.0, 1.0))
    out = learning_times(TIMES, variances, targets, halfway)
    assert out.times.tolist() == pytest.approx([rising, falling], rel=1e-12)
    assert out.rising.tolist() == [True, False]
    assert out.falling.tolist() == [False, True]


def test_modes_at_home_neither_rise_nor_fall_and_late_ones_have_no_time():
    variances, targets = curves((1.0, 1.9), (1.0, 1 / 1.9), (1.0, 2.1))
    targets[2] = 100.0
    out = learning_times(TIMES, variances, targets)
    assert out.rising.tolist() == [False, False, True]
    assert not bool(out.falling.any())
    assert math.isnan(float(out.times[2]))


def test_between_time_zero_and_the_first_record_time_is_linear():
    variances = torch.tensor([[1.0], [16.0]], dtype=torch.float64)
    assert float(learning_times(torch.tensor([0.0, 6.0]), variances, torch.tensor([16.0])).times[0]) == pytest.approx(3.0)


def test_smoothing_moves_an_early_spike_that_is_no_emergence():
    variances, targets = curves((1.0, 16.0))
    variances[1] = 8.0
    assert float(learning_times(TIMES, variances, targets).times[0]) < 1
    assert float(learning_times(TIMES, variances, targets, smooth=1.0).times[0]) > 1


def test_linear_theory_gives_an_exponent_of_minus_one():
    variances = torch.logspace(-2, 1, 13, dtype=torch.float64)
    times = torch.logspace(-3, 4, 400, dtype=torch.float64)
    curve = OneLayer(0.1).generated_variance(variances, times[:, None])
    rate = fit_rate(variances, learning_times(times, curve, variances).times)
    assert rate.slope == pytest.approx(-1, abs=0.1)
    # control: a learner whose modes are all of one variance has one time for all
    same = OneLayer(0.1).generated_variance(torch.ones(5), times[:, None])
    spread = learning_times(times, same, torch.ones(5)).times
    assert float(spread.max() - spread.min()) == 0


def test_bad_input_is_refused():
    good = torch.ones(6, 1)
    with pytest.raises(ShapeError):
        learning_times(TIMES, good[:5], torch.ones(1))
    with pytest.raises(DataError):
        learning_times(TIMES.flip(0), good, torch.ones(1))
    with pytest.raises(DataError):
        learning_times(TIMES, 0 * good, torch.ones(1))
    with pytest.raises(ArgumentError):
        learning_times(TIMES, good, torch.ones(1), smooth=-1.0)
