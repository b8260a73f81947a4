"""Gaussian W2: closed forms, an independent library, the metric axioms, and digits where the trace formula has none."""

import math

import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.errors import ArgumentError, DataError, ShapeError
from sfumato.metrics import gaussian_w2


def gaussian(seed, d, rank=None):
    g = torch.Generator().manual_seed(seed)
    a = torch.randn(d, rank or d, generator=g, dtype=torch.float64)
    return torch.randn(d, generator=g, dtype=torch.float64), a @ a.T / d


def rotation(seed, d):
    return torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[0]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), d=st.integers(1, 12), zeros=st.integers(0, 4))
def test_commuting_covariances_have_the_closed_form(seed, d, zeros):
    """`W2^2 = |m1 - m2|^2 + sum (sqrt(a_i) - sqrt(b_i))^2` in a common eigenbasis, also with zero eigenvalues."""
    g = torch.Generator().manual_seed(seed)
    a, b = torch.rand(2, d, generator=g, dtype=torch.float64)
    a[:zeros] = 0
    m1, m2 = torch.randn(2, d, generator=g, dtype=torch.float64)
    q = rotation(seed, d)
    exact = math.sqrt((m1 - m2).square().sum() + (a.sqrt() - b.sqrt()).square().sum())
    assert gaussian_w2(m1, q * a @ q.T, m2, q * b @ q.T) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_random_covariances_agree_with_pot(seed):
    (m1, c1), (m2, c2) = gaussian(seed, 7), gaussian(seed + 100, 7)
    assert gaussian_w2(m1, c1, m2, c2) == pytest.approx(float(ot.gaussian.bures_wasserstein_distance(m1, m2, c1, c2)), rel=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_a_metric_and_invariant_under_isometries(seed):
    (m1, c1), (m2, c2), (m3, c3) = gaussian(seed, 5), gaussian(seed + 50, 5, rank=2), gaussian(seed + 90, 5)
    d12 = gaussian_w2(m1, c1, m2, c2)
    assert d12 == pytest.approx(gaussian_w2(m2, c2, m1, c1), rel=1e-12)
    assert d12 <= gaussian_w2(m1, c1, m3, c3) + gaussian_w2(m3, c3, m2, c2)
    q = rotation(seed, 5)
    assert d12 == pytest.approx(gaussian_w2(q @ m1 + 3, q @ c1 @ q.T, q @ m2 + 3, q @ c2 @ q.T), rel=1e-12)


@pytest.mark.parametrize(("rank1", "rank2"), [(1, 1), (2, 4), (3, 6), (6, 6)])
def test_singular_covariances_equal_the_transport_of_their_factors(rank1, rank2):
    """`tr(C1^{1/2} C2 C1^{1/2})^{1/2}` is the nuclear norm of `S1^T S2` for any factors, here the ones the covariances are made of."""
    g = torch.Generator().manual_seed(rank1)
    s1, s2 = torch.randn(6, rank1, generator=g, dtype=torch.float64), torch.randn(6, rank2, generator=g, dtype=torch.float64)
    exact = s1.square().sum() + s2.square().sum() - 2 * torch.linalg.svdvals(s1.T @ s2).sum()
    zero = torch.zeros(6, dtype=torch.float64)
    assert gaussian_w2(zero, s1 @ s1.T, zero, s2 @ s2.T) ** 2 == pytest.approx(float(exact), rel=1e-11)


def test_point_masses_and_equal_laws():
    m, c = gaussian(0, 4)
    zero = torch.zeros(4, 4, dtype=torch.float64)
    assert gaussian_w2(m, zero, -m, zero) == pytest.approx(2 * float(m.norm()), rel=1e-14)
    assert gaussian_w2(m, c, m, zero) == pytest.approx(math.sqrt(c.trace()), rel=1e-14)
    assert gaussian_w2(m, c, m, c) < 1e-14


def test_near_equal_covariances_keep_digits_that_the_trace_formula_loses():
    """`C2 = (1 + e)^2 C1` gives exactly `e sqrt(tr C1)`; at `e = 1e-10` the trace formula (negative control) is all rounding."""
    m, c = gaussian(1, 20)
    e = 2.0**-33
    exact = e * math.sqrt(c.trace())
    assert gaussian_w2(m, c, m, (1 + e) ** 2 * c) == pytest.approx(exact, rel=1e-4)
    trace_form = float(ot.gaussian.bures_wasserstein_distance(m, m, c, (1 + e) ** 2 * c))
    assert trace_form != pytest.approx(exact, rel=0.1)


def test_float32_covariances_with_rounded_zeros_are_accepted():
    m, c = gaussian(2, 30, rank=3)
    rounded = (c.float() + c.float().T) / 2
    assert torch.linalg.eigvalsh(rounded.double())[0] < 0
    # an error of r in a covariance may move the distance by sqrt(d r)
    assert gaussian_w2(m, c, m, rounded) < math.sqrt(30 * 2**-23 * float(c.trace()))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda m, c: (m, -c), ArgumentError, "cov2: .*no negative eigenvalue"),
        (lambda m, c: (m, c + torch.triu(torch.ones_like(c), 1)), ArgumentError, "cov2: .*not symmetric"),
        (lambda m, c: (m, c[:2]), ShapeError, "mean2, cov2"),
        (lambda m, c: (m[:2], c[:2, :2]), ShapeError, "mean2, cov2"),
        (lambda m, c: (m * torch.nan, c), DataError, "mean2, cov2: .*NaN"),
        (lambda m, c: (m, c * torch.inf), DataError, "mean2, cov2: .*NaN"),
    ],
)
def test_what_is_no_gaussian_is_refused(change, error, message):
    m, c = gaussian(3, 3)
    with pytest.raises(error, match=message):
        gaussian_w2(m, c, *change(m, c))
