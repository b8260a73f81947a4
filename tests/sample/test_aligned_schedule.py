"""Schedules by optimisation: closed forms of a Gaussian law, an independent quadrature, and what must not be better."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from scipy.integrate import quad

from sfumato.errors import ArgumentError
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.noise import EDM, BetaTable, FlowMatching, VariancePreserving
from sfumato.sample import ddim, karras, response, uniform_log_snr
from sfumato.sample.judges.path_divergence import BeliefError, _important, check_ratios, path_divergence
from sfumato.sample.times.aligned_schedule import PUBLISHED, _descended, aligned, interpolated, published, tangent, times_of

PROCESS = EDM(20.0)
LAW = Gaussian(torch.zeros(3, dtype=torch.float64), SpectralCovariance.diagonal(torch.tensor([0.5, 0.25, 0.02], dtype=torch.float64)))
NODES = [20.0, 5.0, 1.0, 0.3, 0.05]


def mmse(k: float) -> float:
    return sum(v * k**2 / (v + k**2) for v in (0.5, 0.25, 0.02))


def exact_bound(nodes, power=3.0) -> float:
    return sum(quad(lambda k, a=a: (mmse(a) - mmse(k)) / k**power, b, a, limit=200)[0] for a, b in pairwise(nodes))


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_the_bound_is_the_integral(power):
    """Against adaptive quadrature of the closed form."""
    curve = BeliefError.of_gaussian(LAW, 20.0, 0.05)
    assert curve.bound(power)(NODES) == pytest.approx(exact_bound(NODES, power), rel=1e-5)


def test_a_measured_curve_is_the_closed_form():
    """20000 samples of the Gaussian: within 1 %, since the same noise serves every ratio."""
    curve = BeliefError.measured(LAW.denoiser(VariancePreserving()), LAW.sample(20_000, 0), 20.0, 0.05, points=9)
    expected = [mmse(k) for k in curve.ratios]
    assert curve.values == pytest.approx(expected, rel=0.01)


def test_the_sampled_bound_agrees_with_the_curve():
    """The martingale identity: the mean squared difference of two beliefs is the difference of two mean squared errors; seed fixed."""
    found = path_divergence(LAW.denoiser(PROCESS), LAW.sample(6000, 1), NODES)
    assert abs(found.value - exact_bound(NODES)) < 3 * found.standard_error
    assert found.standard_error < 0.05 * found.value


def test_extrapolating_a_martingale_costs_what_it_must():
    """With shares `1 - w` and `w` of two past answers the integrand is `mmse_a - mmse_k + w^2 (mmse_b - mmse_a)`: always more."""
    nodes = [20.0, 2.0, 0.5, 0.2]
    extra = 0.0
    for b, a, low in zip(nodes, nodes[1:], nodes[2:], strict=False):

        def integrand(k, a=a, b=b):
            return (math.log(k / a) / math.log(b / a)) ** 2 * (mmse(b) - mmse(a)) / k**3

        extra += quad(integrand, low, a)[0]
    found = path_divergence(LAW.denoiser(PROCESS), LAW.sample(4000, 2), nodes, order=2)
    assert abs(found.value - exact_bound(nodes) - extra) < 3 * found.standard_error
    assert extra > 10 * found.standard_error


def test_aligned_finds_the_minimum():
    """Against a general optimiser over the same nodes in log k, and never worse than where it started."""
    from scipy.optimize import minimize

    bound = BeliefError.of_gaussian(LAW, 20.0, 0.05).bound()
    times = aligned(PROCESS, 5, bound, 20.0, 0.05, sweeps=200)
    found = bound([20 * t for t in times])

    def cost(logs):
        k = [20.0, *(math.exp(u) for u in logs), 0.05]
        return bound(k) if all(a > b for a, b in pairwise(k)) else math.inf

    best = minimize(cost, [math.log(20 * t) for t in uniform_log_snr(PROCESS, 5, end=0.0025)[1:-1]], method="Nelder-Mead").fun
    assert found <= best * 1.002
    assert found < bound([20 * t for t in karras(PROCESS, 6, ratio_min=0.05)[:-1]])


@pytest.mark.parametrize("n", [1, 7, 10, 14, 20])
def test_aligned_has_the_asked_steps_and_ends(n):
    bound = BeliefError.of_gaussian(LAW, 20.0, 0.05).bound()
    times = aligned(PROCESS, n, bound, 20.0, 0.05, candidates=5, sweeps=3)
    assert len(times) == n + 1
    assert (times[0], times[-1]) == pytest.approx((1.0, 0.05 / 20), rel=1e-12)
    assert bound([20 * t for t in times]) <= bound(interpolated([20.0, 0.05], n)) * (1 + 1e-12)


def test_aligned_takes_a_network_objective():
    """The sampled bound of the exact belief stands in for a network's: optimised on one seed, it is lower on another."""
    belief, data = LAW.denoiser(PROCESS), LAW.sample(100, 3)
    times = aligned(PROCESS, 3, lambda k: path_divergence(belief, data, k, seed=1).value, 20.0, 0.05, candidates=5, sweeps=3)
    fresh = LAW.sample(2000, 4)
    before, after = (path_divergence(belief, fresh, k, seed=2).value for k in (interpolated([20.0, 0.05], 3), [20 * t for t in times]))
    assert after < 0.8 * before


@pytest.mark.parametrize("n", [1, 5, 40])
@pytest.mark.parametrize("std", [0.1, 0.5, 3.0])
def test_tangent_schedule_shrinks_as_the_cosine(n, std):
    """Every Euler step keeps cos(Theta / n) of the flow's standard deviation."""
    law = Gaussian(torch.zeros(1, dtype=torch.float64), SpectralCovariance.isotropic(1, std**2))
    found = response(ddim().compile(PROCESS, tangent(PROCESS, n, std)), law)
    angle = math.atan(20 / std) - math.atan(0.002 / std)
    assert float(found.start / found.flow_start) == pytest.approx(math.cos(angle / n) ** n, rel=1e-10)


def test_tangent_is_better_than_any_neighbour_for_euler():
    law = Gaussian(torch.zeros(1, dtype=torch.float64), SpectralCovariance.isotropic(1, 0.25))
    ratios = [20 * t for t in tangent(PROCESS, 4, 0.5)]

    def kept(k):
        found = response(ddim().compile(PROCESS, times_of(PROCESS, k)), law)
        return float(found.start / found.flow_start)

    for i in range(1, 4):
        for factor in (0.97, 1.03):
            assert kept([*ratios[:i], factor * ratios[i], *ratios[i + 1 :]]) < kept(ratios)


def test_published_tables_are_kept_and_interpolated():
    """Ten steps are the table's, other numbers lie on its log-linear curve; the first ratio is the process's own."""
    process = BetaTable.scaled_linear()
    times = published(process, "stable-diffusion-1.5")
    ratios = process.ratio(torch.tensor(times[:-1], dtype=torch.float64)).tolist()
    assert times[0] == 1.0
    assert times[-1] == 0.0
    assert ratios[1:] == pytest.approx(PUBLISHED["stable-diffusion-1.5"][1:], rel=1e-9)
    double = published(EDM(700.0), "stable-video-diffusion", 19)
    assert len(double) == 20
    assert [700 * t for t in double[:-1:2]] == pytest.approx(PUBLISHED["stable-video-diffusion"], rel=1e-9)
    assert 700 * double[1] == pytest.approx(math.sqrt(700 * 54.5), rel=1e-9)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: tangent(PROCESS, 0, 0.5), "n, std"),
        (lambda: tangent(PROCESS, 5, 0.5, 0.1, 0.2), "ratio_min"),
        (lambda: tangent(PROCESS, 5, 0.5, 0.2, 0.2), "n, std"),
        (lambda: tangent(PROCESS, 5, 0.5, 0.2, 0.0), "n, std"),
        (lambda: tangent(PROCESS, 5, 0.0), "n, std"),
        (lambda: tangent(FlowMatching(), 5, 0.5), "n, std"),
        (lambda: aligned(PROCESS, 0, exact_bound, 2.0, 1.0), "n, candidates"),
        (lambda: aligned(PROCESS, 5, exact_bound, 2.0, 1.0, candidates=2), "n, candidates"),
        (lambda: aligned(PROCESS, 5, exact_bound, 2.0, 1.0, sweeps=-1), "n, candidates"),
        (lambda: aligned(PROCESS, 5, exact_bound, 2.0, 0.0), "n, candidates"),
        (lambda: aligned(PROCESS, 5, exact_bound, 2.0, 2.0), "n, candidates"),
        (lambda: published(PROCESS, "unknown"), "stable-diffusion-1.5"),
        (lambda: published(PROCESS, "stable-video-diffusion"), "ratios in"),
        (lambda: published(PROCESS, "stable-diffusion-xl", 1), "at least 2 steps"),
        (lambda: aligned(PROCESS, 5, exact_bound, 0.1, 0.2), "ratio_min < ratio_max"),
        (lambda: BeliefError((1.0, 2.0), (2.0, 1.0)), "never fall"),
        (lambda: BeliefError((2.0, 1.0), (1.0, 2.0)), "rising ratios"),
        (lambda: BeliefError((1.0, 2.0), (1.0,)), "as many values"),
        (lambda: BeliefError.of_gaussian(LAW, 20.0, 0.05).bound()([20.0, 0.01]), "ratios in"),
        (lambda: BeliefError.of_gaussian(LAW, 20.0, 0.05).bound()([1.0, 1.0]), "that fall"),
        (lambda: path_divergence(LAW.denoiser(PROCESS), LAW.sample(4, 0), [1.0, 0.5], order=0), "at least 1"),
    ],
)
def test_bad_input_is_refused(call, match):
    with pytest.raises(ArgumentError, match=match):
        call()


def test_ratios_are_drawn_from_the_density_that_is_divided_by():
    """The quantile function's slope is one over the density, whose integral is 1; the density falls as the integrand is said to."""
    quantile = torch.linspace(0.0005, 0.9995, 1000, dtype=torch.float64)
    k, density = _important(quantile, 0.1, 3.0, 0.5)
    between, there = _important((quantile[1:] + quantile[:-1]) / 2, 0.1, 3.0, 0.5)
    slope = (k[1:] - k[:-1]) / (quantile[1:] - quantile[:-1])
    # where a cell of the quantile function is narrow; its slope turns steep at the last percent
    inner = slice(0, 950)
    assert torch.allclose(slope[inner], (1 / there)[inner], rtol=0.03)
    assert float(torch.trapezoid(density, k)) == pytest.approx(0.999, abs=2e-3)
    said = between**-3 * (9 - between**2) / (0.5 + between**2)
    whole = quad(lambda v: v**-3 * (9 - v**2) / (0.5 + v**2), 0.1, 3.0)[0]
    # the cells are a seventieth wide, and the density changes by the fourth power of the ratio
    assert torch.allclose(there[inner], (said / whole)[inner], rtol=0.05)
    assert torch.allclose(there[-20:], (said / whole)[-20:], rtol=0.1)


def test_the_last_quantile_is_the_upper_ratio():
    k, density = _important(torch.tensor([0.0, 1.0], dtype=torch.float64), 0.1, 3.0, 0.5)
    assert k.tolist() == pytest.approx([0.1, 3.0], rel=1e-8)
    assert bool(torch.isfinite(density).all())


@pytest.mark.parametrize(("factor", "snaps"), [(0.99906, True), (1.00095, True), (1.00105, False)])
def test_a_first_ratio_is_the_processs_last_within_three_digits(factor, snaps):
    """Otherwise it is a ratio like any other, which a process that ends below it does not have."""
    first = PUBLISHED["stable-diffusion-1.5"][0]
    times = published(EDM(factor * first), "stable-diffusion-1.5")
    assert times[0] == pytest.approx(1.0 if snaps else 1 / factor, rel=1e-12)
    assert times[1] == pytest.approx(PUBLISHED["stable-diffusion-1.5"][1] / (factor * first), rel=1e-12)
    with pytest.raises(ArgumentError, match="ratios in"):
        published(EDM(0.99895 * first), "stable-diffusion-1.5")


def test_without_a_sweep_nodes_stay_where_they_were():
    """Three candidates are enough, no sweep leaves equal steps in the logarithm, and so does an objective that does not care."""
    equal = times_of(PROCESS, interpolated([20.0, 0.05], 4))
    assert aligned(PROCESS, 4, exact_bound, 20.0, 0.05, candidates=3, sweeps=0) == equal
    assert aligned(PROCESS, 4, lambda k: 1.0, 20.0, 0.05, candidates=3, sweeps=2) == equal
    assert [20 * t for t in equal] == pytest.approx([20.0 * 400 ** (-i / 4) for i in range(5)], rel=1e-12)


@pytest.mark.parametrize("ratios", [[3.0, 1.0, 0.0], [3.0, 1.0, -1.0], [math.inf, 1.0, 0.5], [3.0, 3.0, 1.0], [3.0]])
def test_ratios_that_do_not_fall_to_a_positive_one_are_refused(ratios):
    with pytest.raises(ArgumentError, match="ratios"):
        check_ratios(ratios)


def test_the_descent_comes_nearer_once_none_of_its_places_is_better():
    """One free node: its best place lies between the few that are tried at first."""
    found = _descended([10.0, 5.0, 1.0], lambda r: (math.log(r[1]) - math.log(3.3)) ** 2, 5, 60)
    assert found[1] == pytest.approx(3.3, rel=5e-3)
