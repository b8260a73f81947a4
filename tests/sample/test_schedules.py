"""Schedules: what is asked for is what comes out, at both ends and in the spacing."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.errors import ArgumentError
from sfumato.noise import EDM, BetaTable, Cosine, FlowMatching, Trigonometric, VarianceExploding, VariancePreserving
from sfumato.sample import custom, karras, uniform_log_snr, uniform_time

FINITE = [VariancePreserving(), VarianceExploding(), EDM(), BetaTable.linear()]
INFINITE = [FlowMatching(), FlowMatching(3.0), Trigonometric(), Cosine()]

steps = st.integers(2, 60)
processes = st.sampled_from(FINITE + INFINITE)


def falls_strictly(times) -> bool:
    return all(a > b for a, b in pairwise(times))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.floats(0.5, 3.0), st.floats(0.3, 1.0), st.sampled_from([0.0, 0.01, 0.2]))
def test_uniform_time_is_equal_in_the_root_of_time(n, power, start, end):
    times = uniform_time(n, start, end, power)
    assert len(times) == n + 1
    assert (times[0], times[-1]) == (start, end)
    root = torch.tensor(times, dtype=torch.float64) ** (1 / power)
    assert torch.allclose(root.diff(), root.diff().mean().expand(n), rtol=1e-9, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(processes, steps, st.sampled_from([1.0, 0.8]), st.sampled_from([0.0, 0.02]))
def test_uniform_log_snr_is_equal_where_it_is_finite(process, n, start, end):
    """`n` steps in all: equal ones between finite ends, one more down from an infinite start and one to zero noise."""
    if n == 2 and start == 1.0 and end == 0.0 and process in INFINITE:
        n = 3
    times = uniform_log_snr(process, n, start, end)
    assert len(times) == n + 1
    assert (times[0], times[-1]) == (start, end)
    assert falls_strictly(times)
    lam = process.half_log_snr(torch.tensor(times, dtype=torch.float64))
    inner = lam[torch.isfinite(lam)].diff()
    assert len(inner) == n - int(torch.isinf(lam).sum())
    assert torch.allclose(inner, inner.mean().expand(len(inner)), rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(processes, steps, st.floats(1.0, 9.0), st.sampled_from([0.002, 0.05]))
def test_karras_is_equation_5(process, n, rho, low):
    """`k_i = (a + i/(n-1) (b - a))^rho` with `a, b` the roots of the largest and least ratio, then zero."""
    times = karras(process, n, rho, ratio_min=low)
    assert len(times) == n + 1
    assert times[-1] == 0.0
    assert falls_strictly(times)
    high = float(process.ratio(1.0))
    high = high if math.isfinite(high) else 80.0
    expected = [(high ** (1 / rho) + i / (n - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho for i in range(n)]
    got = process.ratio(torch.tensor(times[:-1], dtype=torch.float64))
    assert torch.allclose(got, torch.tensor(expected, dtype=torch.float64), rtol=1e-6)


@pytest.mark.parametrize("process", FINITE + INFINITE, ids=lambda p: p.kind)
def test_one_step(process):
    """A single step leads from the start to the end in every schedule that can make one."""
    assert uniform_time(1) == (1.0, 0.0)
    assert karras(process, 1)[-1] == 0.0
    assert len(karras(process, 1)) == 2
    if process in FINITE:
        assert uniform_log_snr(process, 1) == (1.0, 0.0)
    else:
        with pytest.raises(ArgumentError, match="at least 2 steps"):
            uniform_log_snr(process, 1)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=8, unique=True))
def test_custom_times_are_taken_verbatim(values):
    times = sorted(values, reverse=True)
    assert custom(times) == tuple(times)
    assert custom(torch.tensor(times, dtype=torch.float64)) == tuple(times)
    with pytest.raises(ArgumentError, match="fall strictly"):
        custom(times[::-1])
    with pytest.raises(ArgumentError, match="fall strictly"):
        custom([times[0], *times])


@pytest.mark.parametrize(
    "make",
    [
        lambda: custom([1.0]),
        lambda: custom([1.2, 0.0]),
        lambda: custom([1.0, float("nan"), 0.0]),
        lambda: uniform_time(0),
        lambda: uniform_time(3, 0.2, 0.5),
        lambda: uniform_log_snr(VariancePreserving(), 3, end=1.0),
        lambda: uniform_log_snr(VariancePreserving(), 0),
        lambda: karras(EDM(), 3, ratio_min=90.0),
        lambda: karras(EDM(), 3, ratio_max=100.0),
        lambda: karras(EDM(), 0),
    ],
)
def test_what_makes_no_schedule_is_refused(make):
    with pytest.raises(ArgumentError):
        make()


@pytest.mark.parametrize(
    "make",
    [
        uniform_time,
        lambda n, start, end: uniform_log_snr(EDM(), n, start, end),
        lambda n, start, end: karras(EDM(), n, end=end, ratio_min=40.0),
    ],
    ids=["time", "log-snr", "karras"],
)
def test_steps_and_ends_are_refused_by_name(make):
    """At both sides of every bound: one step, from 1 and to 0, is a schedule; no step, and ends beyond, are none."""
    assert make(1, 1.0, 0.0) == pytest.approx((1.0, 0.0), abs=1e-12)
    for n in (0, -1):
        with pytest.raises(ArgumentError, match=r"^n: .*at least 1 step"):
            make(n, 1.0, 0.0)
    for start, end in ((1.0, 1.0), (1.0, -0.1), (1.0, 1.1)):
        with pytest.raises(ArgumentError, match=r"^start, end: "):
            make(2, start, end)


@pytest.mark.parametrize("make", [uniform_time, lambda n, start, end: uniform_log_snr(EDM(), n, start, end)], ids=["time", "log-snr"])
def test_a_start_beyond_1_is_refused_by_name(make):
    for start in (1.0 + 1e-9, 1.5, math.nan):
        with pytest.raises(ArgumentError, match=r"^start, end: "):
            make(2, start, 0.5)


@pytest.mark.parametrize("n", [1, 4])
def test_ratios_that_do_not_fall_are_refused_by_name(n):
    """Even where one step makes no use of the last ratio."""
    assert len(karras(EDM(80.0), n, ratio_min=39.0, ratio_max=40.0)) == n + 1
    for low, high in ((40.0, 40.0), (41.0, 40.0), (0.0, 40.0)):
        with pytest.raises(ArgumentError, match=r"^ratio_min, ratio_max: "):
            karras(EDM(80.0), n, ratio_min=low, ratio_max=high)


def test_the_quadratic_spacing_by_hand():
    """Roots 0.9, 0.5 and 0.1 of times; and between the same ends as they are."""
    assert uniform_time(2, 0.81, 0.01, 2.0) == pytest.approx((0.81, 0.25, 0.01), rel=1e-14)
    assert uniform_time(2, 0.81, 0.01) == pytest.approx((0.81, 0.41, 0.01), rel=1e-14)
