"""Kernel losses are the measured discrepancies, with gradients."""

from __future__ import annotations

import pytest
import torch

from sfumato.errors import ArgumentError, DataError, ShapeError
from sfumato.learn.students.kernels import gaussian, kernel_loss, per_class, polynomial
from sfumato.metrics import mmd


def pair(n=40, m=30, d=3):
    generator = torch.Generator().manual_seed(1)
    return (torch.randn(k, d, generator=generator, dtype=torch.float64) + s for k, s in ((n, 0.0), (m, 0.4)))


def test_gaussian_loss_is_the_metric_and_its_gradient_is_the_finite_difference():
    x, y = pair()
    kernel = gaussian([0.5, 2])
    assert float(kernel_loss(x, y, kernel)) == pytest.approx(mmd(x, y, [0.5, 2]).value, abs=1e-12)
    # a pair at distance 0 has a gradient too
    x = torch.cat([x, x[:1]])
    assert torch.autograd.gradcheck(lambda v: kernel_loss(v, y, kernel), x[-6:].clone().requires_grad_(True))


def test_linear_kernel_is_the_unbiased_squared_distance_of_means():
    """E over many small batches of equal laws is 0: half of the values are negative, none is clamped."""
    x, y = pair()
    n, m = len(x), len(y)
    mean = (x.mean(0) - y.mean(0)).square().sum() - x.var(0).sum() / n - y.var(0).sum() / m
    assert float(kernel_loss(x, y, polynomial(1))) == pytest.approx(float(mean) / 3, abs=1e-12)
    generator = torch.Generator().manual_seed(2)
    draws = torch.randn(120, 2, 16, 1, generator=generator, dtype=torch.float64)
    values = torch.stack([kernel_loss(a, b, gaussian([1])) for a, b in draws])
    assert abs(float(values.mean())) < 4 * float(values.std()) / 120**0.5
    assert 0.3 < float((values < 0).double().mean()) < 0.8


def test_cubic_kernel_is_blind_beyond_third_moments():
    """Two laws with equal moments 1 to 3: +-1, and 0 or +-2 with probabilities 3/4 and 1/8; Gaussian kernels tell them apart."""
    x = torch.tensor([[-1.0], [1.0]], dtype=torch.float64).repeat(400, 1)
    y = torch.tensor([[-2.0], [2.0], *[[0.0]] * 6], dtype=torch.float64).repeat(100, 1)

    # with the diagonal, the discrepancy of these very points
    def whole(kernel):
        return float(kernel(x, x).mean() + kernel(y, y).mean() - 2 * kernel(x, y).mean())

    assert abs(whole(polynomial(3))) < 1e-12
    assert whole(gaussian([0.5])) > 0.1


def test_classes_are_compared_apart():
    x, y = pair(20, 20)
    cx, cy = (torch.arange(20)[:, None] % 2).double(), (torch.arange(20)[:, None] % 2).double()
    kernel = polynomial(2)
    blocks = per_class(kernel)(torch.cat([x, cx], 1), torch.cat([y, cy], 1))
    assert torch.equal(blocks[0::2, 0::2], kernel(x[0::2], y[0::2]))
    assert not blocks[0::2, 1::2].any()


def test_refuses_nonsense():
    x, y = pair()
    with pytest.raises(ArgumentError, match="degree"):
        polynomial(0)
    with pytest.raises(ArgumentError, match="bandwidths"):
        gaussian([])
    with pytest.raises(DataError):
        kernel_loss(x[:1], y, gaussian())
    with pytest.raises(ShapeError):
        kernel_loss(x[:, :2], y, gaussian())
