"""Wasserstein on the line and sliced: independent libraries, duality, invariances, closed forms, coverage."""

import math

import numpy as np
import ot
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato import seeds
from sfumato.errors import ArgumentError, DataError, ShapeError
from sfumato.metrics import sliced, sliced_wasserstein, wasserstein_1d

SIZES = st.tuples(st.integers(1, 30), st.integers(1, 30), st.integers(0, 10**6))


def line(sizes):
    n, m, seed = sizes
    g = torch.Generator().manual_seed(seed)
    # rounded, so that ties occur
    return tuple(torch.round(4 * torch.randn(k, generator=g, dtype=torch.float64)) / 4 for k in (n, m))


@settings(max_examples=60, deadline=None)
@given(SIZES)
def test_p1_agrees_with_scipy_for_unequal_sizes(sizes):
    x, y = line(sizes)
    assert wasserstein_1d(x, y, p=1) == pytest.approx(scipy.stats.wasserstein_distance(x.numpy(), y.numpy()), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(SIZES, st.sampled_from([1.0, 1.5, 2.0, 3.0]))
def test_every_p_agrees_with_pot_for_unequal_sizes(sizes, p):
    x, y = line(sizes)
    exact = ot.emd2_1d(x.numpy(), y.numpy(), metric="minkowski", p=p)  # the cost |x - y|^p
    assert wasserstein_1d(x, y, p) ** p == pytest.approx(exact, rel=1e-10, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(SIZES, st.integers(2, 4), st.floats(-5, 5))
def test_line_distance_sees_laws_and_not_lists(sizes, copies, shift):
    """Repeating every sample changes nothing, a translation of a law is at the distance of the translation, and order is ignored."""
    x, y = line(sizes)
    assert wasserstein_1d(x.repeat(copies), y) == pytest.approx(wasserstein_1d(x, y), rel=1e-10, abs=1e-12)
    assert wasserstein_1d(x, x.flip(0).repeat(copies) + shift) == pytest.approx(abs(shift), rel=1e-9, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(SIZES, st.sampled_from([1.0, 2.0, 3.0]))
def test_potentials_attain_the_optimal_cost_and_are_feasible(sizes, p):
    """Kantorovich duality: `mean phi + mean psi = W_p^p` and `phi + psi <= c` everywhere, which only optimal potentials satisfy."""
    u, v = (z.sort().values.unsqueeze(1) for z in line(sizes))
    cost = (u - v.T).abs() ** p
    phi, psi = sliced._potential(u, v, p) + cost[0, 0], sliced._potential(v, u, p)
    assert float(phi.mean() + psi.mean()) == pytest.approx(float(sliced._couple(u, v, p)), rel=1e-10, abs=1e-10)
    assert float((phi + psi.T - cost).max()) < 1e-10


def test_sliced_agrees_with_pot_on_the_same_directions_and_in_chunks(monkeypatch):
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 2, 3, generator=g, dtype=torch.float64), 1 + torch.randn(70, 2, 3, generator=g, dtype=torch.float64)
    directions = seeds.noise(5, 30, (6,), dtype=torch.float64).draw(0).numpy()
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    for p in (1, 2, 3):
        theirs = ot.sliced_wasserstein_distance(x.flatten(1).numpy(), y.flatten(1).numpy(), projections=directions.T, p=p)
        ours = sliced_wasserstein(x, y, 30, p, seed=5)
        assert ours.value == pytest.approx(float(theirs), rel=1e-10)
        with monkeypatch.context() as patch:
            patch.setattr(sliced, "_BLOCK", 400)
            chunked = sliced_wasserstein(x, y, 30, p, seed=5)
        assert (chunked.value, chunked.standard_error) == pytest.approx((ours.value, ours.standard_error), rel=1e-12)


def test_on_the_line_every_direction_is_the_same():
    x, y = line((30, 20, 1))
    for p in (1, 2):
        assert sliced_wasserstein(x, y, 3, p).value == pytest.approx(wasserstein_1d(x, y, p), rel=1e-12)


def test_symmetry_scale_and_dtype():
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(30, 4, generator=g), 1 + torch.randn(50, 4, generator=g)
    base = sliced_wasserstein(x, y)
    assert sliced_wasserstein(y, x).value == pytest.approx(base.value, rel=1e-12)
    assert sliced_wasserstein(y, x).standard_error == pytest.approx(base.standard_error, rel=1e-10)
    assert sliced_wasserstein(x.double() * 7, y.double() * 7).value == pytest.approx(7 * base.value, rel=1e-12)
    same = sliced_wasserstein(x, x.flip(0))
    assert (same.value, same.standard_error) == (0, 0)


@pytest.mark.parametrize(("d", "repeats"), [(1, 200), (3, 100)])
def test_the_closed_form_of_two_gaussians_is_covered(d, repeats):
    """`SW_2^2 = |shift|^2/d + (s1 - s2)^2` for `N(0, s1^2 I)` and `N(shift, s2^2 I)`, within 2 standard errors.

    n = 1000, where the upward bias is a small part of the error. A normal estimate covers 95.4 percent; of 100 trials it would fall under
    0.88 with probability 1e-3.
    """
    g = torch.Generator().manual_seed(d)
    shift = torch.zeros(d)
    shift[0] = 0.8
    exact = math.sqrt(0.64 / d + 0.3**2)
    inside, values, errors = 0, [], []
    for seed in range(repeats):
        x, y = torch.randn(1000, d, generator=g), shift + 1.3 * torch.randn(800, d, generator=g)
        found = sliced_wasserstein(x, y, projections=30, seed=seed)
        inside += abs(found.value - exact) < 2 * found.standard_error
        values.append(found.value)
        errors.append(found.standard_error)
    assert inside / repeats >= 0.88
    assert abs(float(torch.tensor(errors).mean() / torch.tensor(values).std()) - 1) < 0.3


def test_what_cannot_be_compared_is_refused():
    x = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    for p in (0.5, math.inf, math.nan):
        with pytest.raises(ArgumentError, match="p: expected a power"):
            sliced_wasserstein(x, x, p=p)
        with pytest.raises(ArgumentError, match="p: expected a power"):
            wasserstein_1d(x[0], x[1], p)
    with pytest.raises(ArgumentError, match="projections"):
        sliced_wasserstein(x, x, projections=1)
    with pytest.raises(ShapeError, match=r"\(n,\) and \(m,\)"):
        wasserstein_1d(x, x)
    with pytest.raises(DataError, match="x: expected at least 1"):
        wasserstein_1d(x[0, :0], x[0])
    with pytest.raises(DataError, match=r"x: .*the first at index \(1,\)"):
        wasserstein_1d(torch.tensor([0.0, torch.nan]), x[0])
    with pytest.raises(ShapeError, match="at least one number"):
        sliced_wasserstein(x[:, :0], x[:, :0])
