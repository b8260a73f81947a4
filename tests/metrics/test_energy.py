"""Energy distance and its error bar: an independent library, exact unbiasedness by enumeration, false alarms and power.

Statistical tests: fixed seeds, bands of 4 standard errors (false-alarm rate 6e-5) unless said otherwise.
"""

import itertools
import math

import pytest
import scipy.spatial.distance
import scipy.stats
import torch

from sfumato.errors import ArgumentError, DataError, ShapeError
from sfumato.metrics import discrepancy, energy_distance


def normal(g, n, *event):
    return torch.randn(n, *event, generator=g, dtype=torch.float64)


def test_on_the_line_it_is_scipys_v_statistic_less_its_diagonal():
    """scipy returns `sqrt(V)`; `V = D + mean|x - x'|/n + mean|y - y'|/m` with means over distinct pairs."""
    g = torch.Generator().manual_seed(0)
    x, y = normal(g, 40), 0.5 + normal(g, 60)
    diagonal = sum(scipy.spatial.distance.pdist(z[:, None].numpy()).mean() / len(z) for z in (x, y))
    v = scipy.stats.energy_distance(x.numpy(), y.numpy()) ** 2
    assert energy_distance(x, y).value + diagonal == pytest.approx(v, rel=1e-12)


def test_in_space_it_is_the_sum_of_mean_distances_whatever_the_tiles():
    g = torch.Generator().manual_seed(1)
    x, y = normal(g, 50, 2, 3), 0.3 + normal(g, 37, 2, 3)
    a, b = x.flatten(1).numpy(), y.flatten(1).numpy()
    pdist, cdist = scipy.spatial.distance.pdist, scipy.spatial.distance.cdist
    exact = 2 * cdist(a, b).mean() - pdist(a).mean() - pdist(b).mean()
    whole = energy_distance(x, y)
    assert whole.value == pytest.approx(exact, rel=1e-10)
    for block in (1, 7, 37, 50):
        tiled = energy_distance(x, y, block)
        assert (tiled.value, tiled.standard_error) == pytest.approx((whole.value, whole.standard_error), rel=1e-9)
    assert energy_distance(y, x).value == pytest.approx(whole.value, rel=1e-10)
    assert energy_distance(x.float() + 1000, y.float() + 1000).value == pytest.approx(exact, rel=1e-2)


def bump(u, v):
    return torch.exp(-(torch.cdist(u, v) ** 2))


def minus_distance(u, v):
    return -torch.cdist(u, v)


@pytest.mark.parametrize(
    ("p", "q", "n", "m", "kernel"),
    [
        ({0.0: 0.3, 1.0: 0.7}, {0.0: 0.6, 1.0: 0.4}, 4, 5, minus_distance),
        ({0.0: 0.5, 1.0: 0.5}, {0.0: 0.5, 1.0: 0.5}, 4, 4, minus_distance),
        ({0.0: 0.2, 1.0: 0.5, 3.0: 0.3}, {0.5: 0.6, 2.0: 0.4}, 4, 4, bump),
    ],
)
def test_value_and_variance_are_exactly_unbiased(p, q, n, m, kernel):
    """Every sample of a small discrete law is enumerated, so expectations are sums: `E[D]` and `E[estimated Var D]` are exact."""
    value = square = variance = total = 0.0
    for xs in itertools.product(p, repeat=n):
        for ys in itertools.product(q, repeat=m):
            weight = math.prod(p[x] for x in xs) * math.prod(q[y] for y in ys)
            x, y = (torch.tensor(z, dtype=torch.float64).unsqueeze(1) for z in (xs, ys))
            parts = discrepancy._within(x, kernel, 9), discrepancy._within(y, kernel, 9), discrepancy._between(x, y, kernel, 9)
            found = discrepancy.discrepancy(x, y, kernel, 9).value
            total, value, square = total + weight, value + weight * found, square + weight * found**2
            variance += weight * sum(discrepancy._variance(*parts))

    def mean(a, b):
        points = [torch.tensor(list(z), dtype=torch.float64).unsqueeze(1) for z in (a, b)]
        weights = [torch.tensor(list(z.values()), dtype=torch.float64) for z in (a, b)]
        return float(weights[0] @ kernel(*points) @ weights[1])

    assert total == pytest.approx(1, rel=1e-12)
    assert value == pytest.approx(mean(p, p) + mean(q, q) - 2 * mean(p, q), abs=1e-12)
    assert variance == pytest.approx(square - value**2, rel=1e-9)


def repeat(n, m, d, shift, repeats):
    g = torch.Generator().manual_seed(n + d)
    found = [energy_distance(normal(g, n, d), shift + normal(g, m, d)) for _ in range(repeats)]
    return torch.tensor([f.value for f in found]), torch.tensor([f.standard_error for f in found])


@pytest.mark.parametrize(("n", "m", "d"), [(60, 60, 1), (40, 90, 3)])
def test_equal_laws_have_mean_zero_and_few_false_alarms(n, m, d):
    """The error bar holds where the first order vanishes: two standard errors above 0 (2.3 percent of normal laws) are passed in under
    2.3 percent of 1,000 trials, and the bar is not too short and at most half too long (its first order is cut off at 0)."""
    value, error = repeat(n, m, d, 0.0, 1000)
    assert abs(float(value.mean())) < 4 * float(value.std()) / math.sqrt(1000)
    assert float((value > 2 * error).double().mean()) < 0.023
    assert 0.95 < float(error.square().mean().sqrt() / value.std()) < 1.5


def test_the_shift_of_a_gaussian_is_measured_and_detected():
    """`E|x - y|` of Gaussians is a folded normal's mean, so `D` is exact; negative control of the false-alarm test: a shift of 0.8 passes
    two standard errors in over 95 percent of 300 trials."""

    def folded(mu):
        return 2 / math.sqrt(math.pi) * math.exp(-(mu**2) / 4) + mu * math.erf(mu / 2)

    value, error = repeat(150, 200, 1, 0.8, 300)
    exact = 2 * folded(0.8) - 2 * folded(0.0)
    assert abs(float(value.mean()) - exact) < 4 * float(value.std()) / math.sqrt(300)
    assert abs(float(error.square().mean().sqrt() / value.std()) - 1) < 4 / math.sqrt(600)
    assert float((value > 2 * error).double().mean()) > 0.95
    assert 0.88 < float(((value - exact).abs() < 2 * error).double().mean()) < 0.99


def test_what_cannot_be_compared_is_refused():
    x = normal(torch.Generator().manual_seed(0), 10, 3)
    with pytest.raises(DataError, match="y: expected at least 4"):
        energy_distance(x, x[:3])
    with pytest.raises(ArgumentError, match="block"):
        energy_distance(x, x, block=0)
    with pytest.raises(ShapeError, match="y"):
        energy_distance(x, x.reshape(10, 3, 1))
    with pytest.raises(DataError, match=r"x: .*30 NaN"):
        energy_distance(x * torch.nan, x)
