"""Rates: exact power laws, agreement with scipy, and an interval that holds the slope as often as it says."""

import math

import pytest
import scipy.stats
import torch

from sfumato.errors import ArgumentError, DataError
from sfumato.metrics import fit_rate


@pytest.mark.parametrize("order", [0.5, 1.0, 3.0])
def test_an_exact_power_law_has_its_slope_and_constant_and_no_interval(order):
    steps = [5, 10, 20, 40, 80]
    rate = fit_rate(steps, [7.0 * n**-order for n in steps])
    assert (rate.slope, rate.constant) == pytest.approx((-order, 7.0), rel=1e-12)
    assert rate.high - rate.low < 1e-12
    assert fit_rate([1 / n for n in steps], torch.tensor([7.0 * n**-order for n in steps])).slope == pytest.approx(order, rel=1e-5)


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_slope_and_interval_are_scipys(confidence):
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(9, generator=g, dtype=torch.float64) + 0.1, torch.rand(9, generator=g, dtype=torch.float64) + 0.1
    ours, theirs = fit_rate(x, y, confidence), scipy.stats.linregress(x.log().numpy(), y.log().numpy())
    half = theirs.stderr * scipy.stats.t.ppf((1 + confidence) / 2, 7)
    assert list(ours.to_dict().values()) == pytest.approx(
        [theirs.slope, theirs.slope - half, theirs.slope + half, math.exp(theirs.intercept)], rel=1e-10
    )
    assert str(ours) == f"{ours.slope:.3f} [{ours.low:.3f}, {ours.high:.3f}]"


def test_the_interval_covers_the_slope_as_stated():
    """1,000 noisy power laws of 4 points at 90 percent: the band of 4 binomial standard errors has a false-alarm rate of 6e-5."""
    g = torch.Generator().manual_seed(1)
    steps = torch.tensor([4.0, 8, 16, 32], dtype=torch.float64)
    inside = 0
    for _ in range(1000):
        rate = fit_rate(steps, steps**-2 * torch.exp(0.3 * torch.randn(4, generator=g, dtype=torch.float64)), confidence=0.9)
        inside += rate.low <= -2 <= rate.high
    assert abs(inside - 900) < 4 * math.sqrt(1000 * 0.9 * 0.1)


@pytest.mark.parametrize(
    ("steps", "errors", "confidence", "error"),
    [
        ([1, 2], [1, 2], 0.95, ArgumentError),
        ([1, 2, 3], [1, 2], 0.95, ArgumentError),
        ([2, 2, 2], [1, 2, 3], 0.95, ArgumentError),
        ([1, 2, 3], [1, 2, 3], 1.0, ArgumentError),
        ([1, 2, 3], [1, 0, 3], 0.95, DataError),
        ([1, 2, 3], [1, -1, 3], 0.95, DataError),
        ([1, 2, 3], [1, math.nan, 3], 0.95, DataError),
        ([0, 2, 3], [1, 2, 3], 0.95, DataError),
    ],
)
def test_what_has_no_rate_is_refused(steps, errors, confidence, error):
    with pytest.raises(error, match="expected"):
        fit_rate(steps, errors, confidence)
