"""Local denoising score matching: minimisers and bounds where the noising is Gaussian and everything is known."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.errors import ArgumentError
from sfumato.learn.losses.local_matching import PathCache, implicit_bound, likelihood_loss, local_loss, longest_increment, simulate_paths
from sfumato.noise.general.nonlinear import coupled_angles, double_well, towards

OU = towards(lambda x: -x, 1.0, True)
"""`dx = -x/2 dt + dw`, towards `N(0, 1)`."""


def _paths(n: int = 8_000, seed: int = 0) -> PathCache:
    generator = torch.Generator().manual_seed(seed)
    x0 = 0.5 * torch.randn(n, 1, generator=generator, dtype=torch.float64)
    return simulate_paths(OU, x0, torch.linspace(0, 1, 11, dtype=torch.float64).tolist(), generator)


def _variance(t):
    return 0.25 * torch.exp(-t) - torch.expm1(-t)


@pytest.mark.parametrize(("h", "quieter"), [(0.1, True), (0.5, False)])
def test_the_marginal_score_is_the_minimiser_and_a_control_quiets_short_increments(h, quieter):
    """On a Gaussian the increment is exact: `s = -c x / v(t)` has its least loss at `c = 1`, by a parabola through three values."""
    paths, generator = _paths(), torch.Generator().manual_seed(1)
    x, s, length = paths.pairs(20_000, h, generator)
    increment, t = OU.increment(x, s, length), s + length
    eps = torch.randn(x.shape, generator=generator, dtype=x.dtype)

    def score(c):
        return lambda y, u: -c * y / _variance(u)[:, None]

    def costs(loss):
        return [loss(score(c)) for c in (0.0, 1.0, 2.0)]

    plain = costs(lambda f: local_loss(f, increment, eps, t))
    quiet = costs(lambda f: local_loss(f, increment, eps, t, f(increment.mean, t)))
    loud = costs(lambda f: likelihood_loss(f, increment, eps, t, 1.0))
    for values in (plain, quiet, loud):
        a, b, c = (float(v.mean()) for v in values)
        assert 1 + (a - c) / (2 * (a - 2 * b + c)) == pytest.approx(1.0, abs=0.08)
    # their difference is |eps|^2 and a product with zero mean
    noise = float(((plain[1] - quiet[1]) - eps.square().sum(1)).mean())
    assert abs(noise) < 4 * float((plain[1] - quiet[1] - eps.square().sum(1)).std()) / math.sqrt(len(eps))
    assert (float(quiet[1].std()) < 0.6 * float(plain[1].std())) is quieter


def test_simulated_paths_have_the_marginals_and_pairs_their_times():
    paths = _paths()
    assert float(paths.states[-1].var()) == pytest.approx(float(_variance(paths.times[-1])), rel=0.07)
    x, s, h = paths.pairs(2000, 0.3, torch.Generator().manual_seed(0))
    end = s + h
    assert float(end.min()) == pytest.approx(0.1)
    assert float(end.max()) == pytest.approx(1.0)
    torch.testing.assert_close(h, torch.minimum(end, torch.full_like(end, 0.3)), rtol=0, atol=1e-9)
    late = s > 0.55
    assert float(x[late].var()) == pytest.approx(float(_variance(s[late]).mean()), rel=0.15)


def test_the_implicit_bound_of_the_exact_score_is_the_likelihood():
    """Unit data: for each datum `E` of the bound over its paths is `log N(x_0; 0, 1)`; a wrong score is below it."""
    generator = torch.Generator().manual_seed(2)
    x0 = torch.full((4000, 1), 1.2, dtype=torch.float64)
    paths = simulate_paths(OU, x0, torch.linspace(0, 2, 41, dtype=torch.float64).tolist(), generator)

    def log_normal(x):
        return -0.5 * (x.square().sum(1) + math.log(2 * math.pi))

    found = implicit_bound(OU, lambda y, t: -y, paths, log_normal, generator)
    error = float(found.std()) / math.sqrt(len(found))
    assert float(found.mean()) == pytest.approx(float(log_normal(x0)[0]), abs=4 * error + 2e-3)
    wrong = implicit_bound(OU, lambda y, t: -0.5 * y, paths, log_normal, generator)
    assert float(wrong.mean()) < float(found.mean()) - 0.05


def test_the_longest_increment_keeps_to_the_tolerance():
    """The means differ by about `h^2 |f J| / 2`, i.e. `h^{3/2} |f J| / 2 g` standard deviations."""
    x = torch.linspace(-1.5, 1.5, 50, dtype=torch.float64)[:, None]
    s = torch.zeros(50, dtype=torch.float64)
    well = double_well(1.0)
    found, reached = longest_increment(well, x, s, 0.02, 0.1)
    assert reached
    for h, fits in ((found, True), (2 * found, False)):
        euler, better = (well.increment(x, s, torch.full((50,), h, dtype=torch.float64), order) for order in (0, 1))
        assert (float(((better.mean - euler.mean) / euler.root).square().mean().sqrt()) <= 0.02) is fits
    assert longest_increment(well, x, s, 1e-9, 0.1, halvings=2) == (0.05, False)


def test_paths_of_coupled_angles_stay_in_their_law():
    """From far away the cosines' means come to those of `pi`, by quadrature on the torus."""
    sde = coupled_angles(1.0)
    generator = torch.Generator().manual_seed(3)
    start = torch.full((600, 2), 2.5, dtype=torch.float64)
    end = simulate_paths(sde, start, torch.linspace(0, 8, 51, dtype=torch.float64).tolist(), generator).states[-1]
    angle = torch.linspace(-math.pi, math.pi, 201, dtype=torch.float64)[:-1]
    a, b = angle[:, None], angle[None, :]
    mass = torch.exp(torch.cos(a) + torch.cos(b) + torch.cos(a - b))
    expected = float((mass * torch.cos(a)).sum() / mass.sum())
    assert float(torch.cos(end).mean()) == pytest.approx(expected, abs=0.06)
    assert abs(math.cos(2.5) - expected) > 1  # where they started


def test_bad_input():
    with pytest.raises(ArgumentError, match="times"):
        simulate_paths(OU, torch.zeros(2, 1, dtype=torch.float64), [0.0, 0.0], torch.Generator())
    with pytest.raises(ArgumentError, match="positive length"):
        _paths(10).pairs(2, 0.0, torch.Generator())
    with pytest.raises(ArgumentError):
        longest_increment(OU, torch.zeros(2, 1, dtype=torch.float64), torch.zeros(2, dtype=torch.float64), 0.0, 1.0)
