from __future__ import annotations

import pytest
import torch

from sfumato.errors import ArgumentError, DataError, ShapeError
from sfumato.exact import Empirical, Gaussian, SpectralCovariance, cumulants, far_field, fit_gaussian
from sfumato.metrics import fit_rate
from sfumato.noise import EDM
from sfumato.seeds import noise


@pytest.fixture(scope="module")
def skewed():
    """300 points in 5 dimensions, skewed and of unequal scales."""
    g = noise(3, 300, (5,), dtype=torch.float64).draw(0)
    return (g + 0.4 * g**2) * torch.tensor([2.0, 1.0, 0.7, 0.3, 0.1], dtype=torch.float64)


def test_the_norms_are_those_of_the_cumulant_tensors(skewed):
    """Against the tensors written out by their definition."""
    x = skewed - skewed.mean(0)
    n = len(x)
    second = x.T @ x / n
    third = torch.einsum("ia,ib,ic->abc", x, x, x) / n
    fourth = torch.einsum("ia,ib,ic,id->abcd", x, x, x, x) / n
    fourth = fourth - sum(torch.einsum(f"{p},{q}->abcd", second, second) for p, q in (("ab", "cd"), ("ac", "bd"), ("ad", "bc")))
    got = cumulants(skewed)
    assert got.third == pytest.approx(float(third.square().sum()), rel=1e-12)
    assert got.fourth == pytest.approx(float(fourth.square().sum()), rel=1e-10)
    blocks = cumulants(skewed.repeat(8, 1))
    assert blocks.third == pytest.approx(got.third, rel=1e-12)
    assert blocks.fourth == pytest.approx(got.fourth, rel=1e-10), "the law is the same, more blocks or fewer"


def test_the_whitened_norm_is_the_sum_over_modes(skewed):
    law = fit_gaussian([skewed])
    z = law.covariance.project(skewed - law.mean)
    third = torch.einsum("ia,ib,ic->abc", z, z, z) / len(z)
    k = 0.8
    c = 1 / (law.covariance.eigenvalues + k**2)
    expected = k**4 / 2 * float((third**2 * torch.einsum("a,b,c->abc", c**2, c, c)).sum())
    assert far_field(skewed, law, [k]).whitened[0] == pytest.approx(expected, rel=1e-10)


def test_the_denoisers_part_at_the_predicted_rate(skewed):
    """Measured on 20,000 noisy points, at 2 % standard error; with permuted eigenvectors the Gaussian is wrong at second order already."""
    process, law = EDM(400.0), fit_gaussian([skewed])
    ratios = [20.0, 40.0, 80.0]
    eps = noise(0, 20_000, (5,), dtype=torch.float64).draw(0)
    x0 = skewed[torch.arange(20_000) % 300]
    turned = Gaussian(law.mean, SpectralCovariance.low_rank(law.covariance.basis.columns().flip(1), law.covariance.eigenvalues, 0.0))

    def gap(other, k):
        t = process.time_of_ratio(k)
        x = process.sample(x0, t, eps)
        away = Empirical(skewed).posterior_mean(x, process, t) - other.posterior_mean(x, process, t)
        return float(away.square().sum(1).mean())

    predicted = far_field(skewed, law, ratios)
    measured = [gap(law, k) for k in ratios]
    assert measured[-1] == pytest.approx(predicted.plain[-1], rel=0.08)
    assert measured[0] == pytest.approx(predicted.whitened[0], rel=0.15)
    assert fit_rate(ratios, measured).slope == pytest.approx(-4, abs=0.1)
    assert fit_rate(ratios, [gap(turned, k) for k in ratios]).slope == pytest.approx(-2, abs=0.1)
    # the order of the series: with the fourth cumulant the prediction is larger, by less the farther one is
    ratio = [c / p for c, p in zip(predicted.corrected, predicted.plain, strict=True)]
    assert ratio[0] > ratio[1] > ratio[2] > 1
    assert predicted.unexplained[0] == pytest.approx(predicted.plain[0] / (5 * ratios[0] ** 2))


def test_symmetric_data_have_no_third_cumulant(skewed):
    both = torch.cat([skewed, -skewed])
    assert cumulants(both).third == pytest.approx(0, abs=1e-12)


def test_bad_input_is_named(skewed):
    law = fit_gaussian([skewed])
    with pytest.raises(DataError, match="points"):
        cumulants(skewed[:1])
    with pytest.raises(ShapeError, match="points"):
        far_field(skewed[:, :3], law, [1.0])
    with pytest.raises(ArgumentError, match="ratios"):
        far_field(skewed, law, [0.0])
