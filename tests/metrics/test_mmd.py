"""MMD: brute force, the closed form of Gaussians, the median rule, power and its control. Bands of 4 standard errors, fixed seeds."""

import math

import numpy as np
import pytest
import scipy.spatial.distance
import torch

from sfumato.errors import ArgumentError, DataError
from sfumato.metrics import mmd


def normal(g, n, *event):
    return torch.randn(n, *event, generator=g, dtype=torch.float64)


def brute_force(x, y, bandwidths):
    pdist, cdist = scipy.spatial.distance.pdist, scipy.spatial.distance.cdist
    a, b = x.flatten(1).numpy(), y.flatten(1).numpy()

    def k(distances):
        return np.mean([np.exp(-(distances**2) / (2 * h**2)).mean() for h in bandwidths])

    return k(pdist(a)) + k(pdist(b)) - 2 * k(cdist(a, b))


def test_it_is_the_u_statistic_for_given_and_for_median_bandwidths():
    g = torch.Generator().manual_seed(0)
    x, y = normal(g, 30, 2, 2), 0.5 + normal(g, 45, 2, 2)
    assert mmd(x, y, [0.7, 3.0], block=11).value == pytest.approx(brute_force(x, y, [0.7, 3.0]), rel=1e-10)
    distances = np.sort(scipy.spatial.distance.pdist(torch.cat([x, y]).flatten(1).numpy()))
    median = distances[(len(distances) - 1) // 2]
    assert mmd(x, y).value == pytest.approx(brute_force(x, y, [median / 2, median, 2 * median]), rel=1e-9)
    assert mmd(5 * x, 5 * y).value == pytest.approx(mmd(x, y).value, rel=1e-9)


@pytest.mark.parametrize(("shift", "low", "high"), [(0.0, 0.0, 0.023), (1.0, 0.95, 1.0)])
def test_closed_form_false_alarms_and_power(shift, low, high):
    """For `N(0,1)`, `N(shift,1)` and h = 1, `MMD^2 = 2 (1 - exp(-shift^2/6)) / sqrt(3)`; two standard errors above 0 are passed in under
    2.3 percent of 300 trials of equal laws and in over 95 percent of shifted ones."""
    g = torch.Generator().manual_seed(1)
    found = [mmd(normal(g, 120, 1), shift + normal(g, 150, 1), [1.0]) for _ in range(300)]
    value, error = torch.tensor([f.value for f in found]), torch.tensor([f.standard_error for f in found])
    exact = 2 * (1 - math.exp(-(shift**2) / 6)) / math.sqrt(3)
    assert abs(float(value.mean()) - exact) < 4 * float(value.std()) / math.sqrt(300)
    assert low <= float((value > 2 * error).double().mean()) <= high


def test_bandwidths_that_mean_nothing_are_refused():
    x = normal(torch.Generator().manual_seed(0), 10, 3)
    for bandwidths in ([], [0.0], [1.0, -1.0], [math.nan], [math.inf]):
        with pytest.raises(ArgumentError, match="bandwidths"):
            mmd(x, x, bandwidths)
    with pytest.raises(DataError, match="median"):
        mmd(torch.zeros(9, 2), torch.zeros(9, 2))
