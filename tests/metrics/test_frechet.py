"""Frechet distance: the plug-in value is that of the fitted Gaussians; the corrected one is unbiased within its stated error.

Coverage: of 100 independent intervals of two standard errors a normal estimate misses 4.6 percent on average, and fewer than 88 hold the
exact value with probability 1e-3. The seeds are fixed.
"""

import math

import ot
import pytest
import torch

from sfumato.errors import ArgumentError, DataError, ShapeError
from sfumato.metrics import frechet, frechet_distance, gaussian_w2


def normal(g, n, *event):
    return torch.randn(n, *event, generator=g, dtype=torch.float64)


def plug_in(x, y):
    fit = [(z.mean(0), torch.atleast_2d(z.T.cov())) for z in (x.flatten(1), y.flatten(1))]
    return gaussian_w2(*fit[0], *fit[1]) ** 2


@pytest.mark.parametrize(("n", "m", "event"), [(50, 80, (3,)), (21, 33, (2, 2)), (7, 9, (1,)), (10, 12, (5, 6)), (4, 4, (2,))])
def test_value_plus_bias_is_the_squared_distance_of_the_fitted_gaussians(n, m, event):
    g = torch.Generator().manual_seed(n)
    x, y = normal(g, n, *event), 0.5 + 1.5 * normal(g, m, *event)
    found = frechet_distance(x, y)
    assert found.value + found.bias == pytest.approx(plug_in(x, y), rel=1e-6)


def test_value_plus_bias_agrees_with_pot():
    g = torch.Generator().manual_seed(0)
    x, y = normal(g, 60, 4), 0.3 + normal(g, 70, 4) @ normal(g, 4, 4)
    found, theirs = frechet_distance(x, y), ot.gaussian.bures_wasserstein_distance(x.mean(0), y.mean(0), x.T.cov(), y.T.cov())
    assert found.value + found.bias == pytest.approx(float(theirs) ** 2, rel=1e-8)


def test_the_jackknife_is_exact_for_means_and_their_squares():
    """Leaving out single samples, it gives a mean the variance `s^2/n` and no bias, and a squared mean the bias `s^2/n`: identities."""
    x = normal(torch.Generator().manual_seed(4), 15, 1)
    parts = frechet._block_moments(x, 15, seed=0)
    expected = float(x.var()) / 15
    bias, variance = frechet._jackknife(float(x.mean()), parts, lambda fit: float(fit[0]))
    assert (bias, variance) == pytest.approx((0, expected), abs=1e-13)
    assert frechet._jackknife(float(x.mean()) ** 2, parts, lambda fit: float(fit[0]) ** 2)[0] == pytest.approx(expected, rel=1e-10)


def test_the_jackknife_weighs_unequal_blocks_by_their_size():
    """A mean is linear in the samples, so its pseudo-values are the block means and it has no bias, whatever the blocks."""
    x = normal(torch.Generator().manual_seed(5), 15, 1)
    parts = frechet._block_moments(x, 4, seed=0)
    assert sorted(k for k, _, _ in parts) == [3, 4, 4, 4]
    bias, variance = frechet._jackknife(float(x.mean()), parts, lambda fit: float(fit[0]))
    expected = sum((float(total) / k - float(x.mean())) ** 2 / (15 / k - 1) for k, total, _ in parts) / 4
    assert (bias, variance) == pytest.approx((0, expected), abs=1e-13)


def estimates(d, n, m, shift, scale, repeats):
    g = torch.Generator().manual_seed(d)
    found = [frechet_distance(normal(g, n, d), shift + scale * normal(g, m, d), seed=i) for i in range(repeats)]
    return tuple(torch.tensor([getattr(f, name) for f in found]) for name in ("value", "standard_error", "bias"))


@pytest.mark.parametrize(("d", "n", "m", "shift", "scale"), [(2, 200, 300, 0.5, 1.3), (8, 400, 300, 0.2, 1.2)])
def test_the_exact_value_lies_within_two_standard_errors_as_often_as_it_should(d, n, m, shift, scale):
    """`W2^2 = d shift^2 + d (scale - 1)^2`; the mean of 100 is tested at 4 standard errors, the spread to 30 percent (4 sigma)."""
    value, error, _ = estimates(d, n, m, shift, scale, 100)
    exact = d * (shift**2 + (scale - 1) ** 2)
    assert float(((value - exact).abs() < 2 * error).double().mean()) >= 0.88
    assert abs(float(value.mean()) - exact) < 4 * float(value.std()) / math.sqrt(100)
    assert abs(float(error.square().mean().sqrt() / value.std()) - 1) < 0.3


def test_equal_laws_are_at_distance_zero_and_the_plug_in_value_is_not():
    """The jackknife takes the bias off; without it (negative control) the mean is far more than 4 standard errors from 0."""
    value, error, bias = estimates(5, 200, 200, 0.0, 1.0, 100)
    assert abs(float(value.mean())) < 4 * float(value.std()) / math.sqrt(100)
    assert abs(float((value + bias).mean())) > 20 * float((value + bias).std()) / math.sqrt(100)
    assert float((value.abs() < 2 * error).double().mean()) >= 0.88


def test_isometries_and_dtypes_leave_it_alone_and_scale_squares_it():
    g = torch.Generator().manual_seed(3)
    x, y = normal(g, 90, 2, 3), 0.4 + normal(g, 70, 2, 3)
    base, turn = frechet_distance(x, y), torch.linalg.qr(normal(g, 6, 6))[0]
    turned = [z.flatten(1) @ turn + 1e3 for z in (x, y)]
    assert frechet_distance(*turned).value == pytest.approx(base.value, rel=1e-8)
    assert frechet_distance(*turned).standard_error == pytest.approx(base.standard_error, rel=1e-8)
    assert frechet_distance(3 * x, 3 * y).value == pytest.approx(9 * base.value, rel=1e-10)
    assert frechet_distance(x.float(), y.float()).value == pytest.approx(base.value, rel=1e-5)
    assert frechet_distance(y, x).bias == pytest.approx(base.bias, abs=base.standard_error)
    assert frechet_distance(x, y, seed=0) == base
    assert frechet_distance(x, y, seed=9).standard_error != base.standard_error


def test_what_cannot_be_compared_is_refused():
    x = normal(torch.Generator().manual_seed(0), 10, 3)
    with pytest.raises(DataError, match="x: expected at least 4"):
        frechet_distance(x[:3], x)
    with pytest.raises(DataError, match="y: expected at least 4"):
        frechet_distance(x, x[:3])
    with pytest.raises(ArgumentError, match="blocks"):
        frechet_distance(x, x, blocks=1)
    with pytest.raises(ShapeError, match="y"):
        frechet_distance(x, x[:, :2])
    with pytest.raises(DataError, match=r"y: .*1 NaN .* \(4, 1\)"):
        frechet_distance(x, x.index_put((torch.tensor(4), torch.tensor(1)), torch.tensor(torch.nan, dtype=torch.float64)))
