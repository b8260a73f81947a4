"""Emergence times by search, local filters by matrix exponentials, far-field norms block by block, and what the defaults are."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.linalg import expm

from sfumato.exact import Empirical, LocalFilter, OneLayer, TwoLayer, affine_weights, cumulants, far_field, fit_gaussian, fourier_variances
from sfumato.exact.learning.learning_times import learning_times
from sfumato.exact.learning.proxy import posterior_covariance, posterior_variance, proxy_covariance, proxy_variance
from sfumato.noise import VariancePreserving

F64 = torch.float64


def generator(seed):
    return torch.Generator().manual_seed(seed)


def level_of(first, goal, halfway):
    """What counts as emerged, as a variance."""
    if halfway == "geometric":
        return math.sqrt(first * goal)
    if halfway == "harmonic":
        return 2 / (1 / first + 1 / goal)
    edge = 0.8 * goal if first < goal else 1.2 * goal
    return first if 0.8 * goal <= first <= 1.2 * goal else edge


def searched(times, curve, goal, halfway):
    """The first record past the level, and the straight line to it from the record before."""
    first, sign = curve[0], 1 if curve[0] < goal else -1
    level = math.log(level_of(first, goal, halfway))
    for i, value in enumerate(curve):
        if sign * (math.log(value) - level) >= -1e-15:
            if i == 0:
                return times[0]
            share = (level - math.log(curve[i - 1])) / (math.log(value) - math.log(curve[i - 1]))
            low, high = times[i - 1], times[i]
            return low * (high / low) ** share if low > 0 else share * high
    return math.nan


@pytest.mark.parametrize("begin", [0.0, 0.3])
@pytest.mark.parametrize("halfway", ["geometric", "harmonic", "band"])
def test_emergence_times_are_found_by_search(halfway, begin):
    """Forty modes that rise, fall, start at home (or inside the band) or never arrive, on unequal records."""
    times = begin + torch.tensor([0.0, 0.5, 0.8, 2.0, 5.0, 5.5, 9.0], dtype=F64)
    goal = torch.exp(torch.randn(40, dtype=F64, generator=generator(0)))
    start = goal * torch.exp(1.5 * torch.randn(40, dtype=F64, generator=generator(1)))
    start[:4] = goal[:4] * torch.tensor([1.1, 0.9, 1.19, 0.81], dtype=F64)
    share = torch.rand(7, 40, dtype=F64, generator=generator(2)).sort(0).values * 1.2
    share[0] = 0
    curve = start * (goal / start) ** share
    got = learning_times(times, curve, goal, halfway)
    expected = [searched(times.tolist(), curve[:, j].tolist(), float(goal[j]), halfway) for j in range(40)]
    np.testing.assert_allclose(got.times.numpy(), expected, rtol=1e-10)
    assert got.rising.tolist() == (start < goal / 2).tolist()
    assert got.falling.tolist() == (start > goal * 2).tolist()
    assert any(math.isnan(t) for t in expected) or halfway != "band"


def test_the_usual_rule_is_geometric_without_smoothing():
    times, curve = torch.tensor([0.0, 1.0, 3.0], dtype=F64), torch.tensor([[1.0], [2.0], [9.0]], dtype=F64)
    goal = torch.tensor([9.0], dtype=F64)
    usual = learning_times(times, curve, goal).times
    assert torch.equal(usual, learning_times(times, curve, goal, "geometric", 0.0).times)
    assert float(usual) == pytest.approx(3 ** (math.log(3 / 2) / math.log(9 / 2)), rel=1e-12)


def test_smoothing_is_a_gaussian_mean_over_records():
    times, width = torch.arange(6, dtype=F64), 0.8
    curve = torch.exp(torch.randn(6, 3, dtype=F64, generator=generator(3)).cumsum(0) + times[:, None] * torch.tensor([2.0, -2.0, 1.5]))
    goal = torch.exp(torch.tensor([7.0, -6.0, 5.0], dtype=F64))
    place = np.arange(6)
    weights = np.exp(-np.square(place[:, None] - place) / (2 * width**2))
    smooth = np.exp(weights / weights.sum(1, keepdims=True) @ np.log(curve.numpy()))
    got = learning_times(times, curve, goal, smooth=width).times
    torch.testing.assert_close(got, learning_times(times, torch.tensor(smooth), goal).times, rtol=1e-10, atol=0)
    assert bool(((got - learning_times(times, curve, goal).times).abs() > 1e-2).all())  # the control: smoothing moves all of them


def test_defaults_of_the_learners():
    """Rate 1, from 80 down to 0.002, filters that start at 0."""
    v, spectrum = torch.tensor([2.0, 0.1], dtype=F64), fourier_variances(torch.randn(9, 2, 3, generator=generator(4)))
    for kind in (OneLayer, TwoLayer):
        usual, given = kind(0.1), kind(0.1, 1.0)
        assert torch.equal(usual.weight(v, 0.5, 0.3), given.weight(v, 0.5, 0.3))
        assert torch.equal(usual.generated_variance(v, 0.3), given.generated_variance(v, 0.3, 80.0, 0.002))
        assert not torch.equal(kind(0.1, 1.1).weight(v, 0.5, 0.3), given.weight(v, 0.5, 0.3))
    local, plain = LocalFilter(spectrum, (1, 3)), LocalFilter(spectrum, (1, 3), 0.0, 1.0)
    assert torch.equal(local.generated_variance(0.1), plain.generated_variance(0.1, 80.0, 0.002))
    assert float(local.filter(0.7, 0.0).abs().max()) == 0
    start, bias = torch.eye(2, dtype=F64), torch.ones(2, dtype=F64)
    usual = affine_weights(bias, start, 0.5, 0.3, start, bias)
    for one, other in zip(usual, affine_weights(bias, start, 0.5, 0.3, start, bias, 1.0), strict=True):
        assert torch.equal(one, other)


def shifted(grid, offset):
    """The matrix of `x_p -> x_(p + o)` on a circular grid."""
    places = list(itertools.product(*map(range, grid)))
    index = {p: i for i, p in enumerate(places)}
    out = np.zeros((len(places), len(places)))
    for p, i in index.items():
        out[i, index[tuple((a + b) % n for a, b, n in zip(p, offset, grid, strict=True))]] = 1
    return out


@pytest.mark.parametrize(("window", "start"), [((1, 3), 0.3), ((3, 3), None), ((3, 4), 0.1), ((1, 1), -0.2)])
def test_a_local_filter_is_the_exponential_of_its_gradient(window, start):
    """The error of `sum_o w_o P_o` on the whole 3 x 4 grid, with shifts as matrices: gradient flow is linear in `w`."""
    grid, sigma, tau, rate = (3, 4), 0.6, 0.03, 0.4
    x = torch.randn(30, *grid, dtype=F64, generator=generator(5)).cumsum(2)
    spectrum = fourier_variances(x)
    away = (x - x.mean(0)).flatten(1).numpy()
    offsets = list(itertools.product(*(range(-(k // 2), k - k // 2) for k in window)))
    moves = [shifted(grid, o) for o in offsets]
    # the grid has no preferred place, and the Fourier variances do not either: average the covariance over it
    turns = [shifted(grid, o) for o in itertools.product(range(3), range(4))]
    clean = sum(t @ (away.T @ away / 30) @ t.T for t in turns) / 12
    noisy = clean + sigma**2 * np.eye(12)
    square = np.array([[np.trace(a @ noisy @ b.T) for b in moves] for a in moves])
    cross = np.array([np.trace(a @ clean) for a in moves])
    target = np.linalg.solve(square, cross)
    given = torch.randn(window, dtype=F64, generator=generator(6)) if start is None else start
    begun = given.numpy().reshape(-1) if start is None else start * np.array([float(o == (0, 0)) for o in offsets])
    expected = target + expm(-2 * rate * tau * square) @ (begun - target)
    local = LocalFilter(spectrum, window, given, rate)
    np.testing.assert_allclose(local.filter(sigma, tau).numpy().reshape(-1), expected, rtol=1e-9, atol=1e-11)
    # the response falls by (1 - Re w_f) per unit of log sigma: central differences of what is generated
    h, phases = 1e-4, np.fft.fftn(np.eye(12).reshape(12, *grid)[0])
    assert phases.shape == grid
    wave = np.zeros(grid, dtype=complex)
    for weight, o in zip(local.filter(sigma, tau).numpy().reshape(-1), offsets, strict=True):
        angle = sum(2 * np.pi * f * c / n for f, c, n in zip(np.indices(grid), o, grid, strict=True))
        wave += weight * np.exp(1j * angle)
    up, down = (local.generated_variance(tau, 50.0, sigma * math.exp(s * h)).log().numpy() for s in (1, -1))
    np.testing.assert_allclose((up - down) / (4 * h), 1 - wave.real, rtol=1e-6, atol=1e-6)
    ends = local.generated_variance(tau, 2.0, 2.0)
    np.testing.assert_allclose(ends.numpy(), 4.0, rtol=1e-12)


def test_far_field_in_blocks_on_events(monkeypatch):
    """Blocks of 3 among 8 points with a mean; all five columns by tensors, at two ratios."""
    x = torch.randn(8, 1, 2, dtype=F64, generator=generator(7)) ** 2 + torch.tensor([3.0, -1.0], dtype=F64)
    law = fit_gaussian([x])
    monkeypatch.setattr("sfumato.exact.learning.far_field._BLOCK", 3)
    flat = x.flatten(1) - x.flatten(1).mean(0)
    second = flat.T @ flat / 8
    third = torch.einsum("ia,ib,ic->abc", flat, flat, flat) / 8
    fourth = torch.einsum("ia,ib,ic,id->abcd", flat, flat, flat, flat) / 8
    fourth = fourth - sum(torch.einsum(f"{p},{q}->abcd", second, second) for p, q in (("ab", "cd"), ("ac", "bd"), ("ad", "bc")))
    norms = cumulants(x)
    assert norms.third == pytest.approx(float(third.square().sum()), rel=1e-11)
    assert norms.fourth == pytest.approx(float(fourth.square().sum()), rel=1e-10)
    out = far_field(x, law, [0.7, 2.0])
    assert out.ratios == (0.7, 2.0)
    for i, k in enumerate(out.ratios):
        inverse = torch.linalg.inv(second + k**2 * torch.eye(2, dtype=F64))
        white = torch.einsum("abc,def,ad,be,cf->", third, third, inverse @ inverse, inverse, inverse)
        assert out.plain[i] == pytest.approx(norms.third / (2 * k**4), rel=1e-12)
        assert out.corrected[i] == pytest.approx(norms.third / (2 * k**4) + norms.fourth / (6 * k**6), rel=1e-12)
        assert out.whitened[i] == pytest.approx(k**4 / 2 * float(white), rel=1e-10)
        assert out.unexplained[i] == pytest.approx(norms.third / (4 * k**6), rel=1e-12)


@pytest.mark.parametrize("weights", [None, [0.1, 0.3, 0.05, 0.25, 0.3]])
def test_spread_points_by_conditioning_each(monkeypatch, weights):
    """Points that have been through noise, on (1, 2) events far from the origin, two at a time: the law of total covariance."""
    process, t = VariancePreserving(), 0.25
    points = 4 + torch.randn(5, 1, 2, dtype=F64, generator=generator(8))
    law = Empirical(points, weights).through(process, 0.1)
    x = law.through(process, t).sample(3, 2)
    alpha, sigma = (float(v) for v in process.levels(t))
    a, s = (float(v) for v in process.levels(0.1))
    monkeypatch.setattr("sfumato.exact.learning.proxy.BLOCK", 2)
    monkeypatch.setattr("sfumato.exact.learning.proxy.SCORES", 5)
    spread = alpha**2 * s**2 + sigma**2
    flat, centres = x.flatten(1), a * points.flatten(1)
    shares = torch.ones(5, dtype=F64) / 5 if weights is None else torch.tensor(weights, dtype=F64)
    logs = shares.log() - (flat[:, None] - alpha * centres).square().sum(2) / (2 * spread)
    shares = torch.softmax(logs, 1)
    means = centres + alpha * s**2 / spread * (flat[:, None] - alpha * centres)
    away = means - torch.einsum("bk,bkd->bd", shares, means)[:, None]
    exact = torch.einsum("bk,bkd,bke->bde", shares, away, away) + s**2 * sigma**2 / spread * torch.eye(2, dtype=F64)
    torch.testing.assert_close(posterior_covariance(law, x, process, t), exact, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(posterior_variance(law, x, process, t), exact.diagonal(dim1=1, dim2=2).sum(1), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(proxy_covariance(law, x, process, t), exact * alpha**2 / sigma**4, rtol=1e-9, atol=1e-12)
    trace = exact.diagonal(dim1=1, dim2=2).sum(1) * alpha**2 / sigma**4
    torch.testing.assert_close(proxy_variance(law, x, process, t), trace, rtol=1e-9, atol=1e-12)


def test_fourier_variances_on_one_axis_and_two():
    for shape in ((5,), (2, 3)):
        x = 3 + torch.randn(7, *shape, dtype=F64, generator=generator(9))
        away = (x - x.mean(0)).numpy()
        expected = np.mean([np.abs(np.fft.fftn(a)) ** 2 for a in away], 0) / math.prod(shape)
        np.testing.assert_allclose(fourier_variances(x).numpy(), expected, rtol=1e-11)


def test_the_spread_of_points_far_from_the_origin_keeps_its_digits():
    """Points and query moved by 1e5: squares of 1e10 would leave six digits of a variance of 1."""
    process, t = VariancePreserving(), 0.4
    alpha = float(process.alpha(t))
    points, x = torch.randn(6, 2, dtype=F64, generator=generator(10)), torch.randn(3, 2, dtype=F64, generator=generator(11))
    near = posterior_variance(Empirical(points), x, process, t)
    far = posterior_variance(Empirical(points + 1e5), x + alpha * 1e5, process, t)
    torch.testing.assert_close(far, near, rtol=1e-8, atol=0)
