"""Blends of two mixtures: exact beliefs by quadrature and by draws, the map's order and limit, names of one method, refused input."""

from __future__ import annotations

import math

import pytest
import torch
from jaxtyping import TypeCheckError

from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import GaussianMixture, SpectralCovariance
from sfumato.exact.laws.blend import Blend
from sfumato.noise import FlowMatching
from sfumato.sample import RungeKutta, ddim, run
from sfumato.sample.steps.blending import _slope, blend, random_blend
from sfumato.seeds import noise


def mixture(means, variances, weights=None):
    parts = [SpectralCovariance.isotropic(len(means[0]), v) for v in variances]
    return GaussianMixture(weights, torch.tensor(means, dtype=torch.float64), parts)


def even(n):
    return [i / n for i in range(n + 1)]


LINE = Blend(mixture([[-1.0], [1.0]], [0.1, 0.3], [0.3, 0.7]), mixture([[-2.0], [0.0], [1.5]], [0.2, 0.05, 0.1]))
PLANE = Blend(mixture([[-1.0, 0.0], [1.0, 1.0]], [0.3, 0.2]), mixture([[1.5, 0.0], [-1.0, 1.2]], [0.25, 0.4]))


@pytest.mark.parametrize("a", [0.0, 0.3, 0.8, 1.0])
def test_beliefs_are_integrals_over_the_pairs_of_a_blend(a):
    """On the line `p(x_0 | x_a) ~ p_0(x_0) p_1((x - (1 - a) x_0) / a)`, by the trapezium rule; at an end one side is the blend itself."""
    x = torch.tensor([[-0.7], [0.4]], dtype=torch.float64)
    sides = LINE.sides(x, a)
    assert float(((1 - a) * sides.source + a * sides.target - x).abs().max()) < 1e-12
    if a in (0.0, 1.0):
        known, other = (sides.source, sides.target) if a == 0 else (sides.target, sides.source)
        assert float((known - x).abs().max()) < 1e-12
        assert float((other - (LINE.target if a == 0 else LINE.source).mean).abs().max()) < 1e-12
        return
    grid = torch.linspace(-8, 8, 20001, dtype=torch.float64)[:, None]
    for value, mean in zip(x[:, 0], sides.source[:, 0], strict=True):
        weight = (LINE.source.log_prob(grid) + LINE.target.log_prob((value - (1 - a) * grid) / a)).exp()
        assert math.isclose(float((weight * grid[:, 0]).sum() / weight.sum()), float(mean), rel_tol=1e-9)


def test_draws_of_pairs_blend_to_the_point_and_have_the_beliefs_mean():
    """4000 draws at one point: the blend is exact, the mean of the source within 4 standard errors."""
    x = torch.tensor([[0.3, 0.1]], dtype=torch.float64).expand(4000, 2)
    pair = PLANE.draw(x, 0.4, noise(0, 4000, (2,)))
    assert float((0.6 * pair.source + 0.4 * pair.target - x).abs().max()) < 1e-12
    error = pair.source.std(0) / math.sqrt(4000)
    assert bool(((pair.source.mean(0) - PLANE.sides(x[:1], 0.4).source[0]).abs() < 4 * error).all())


@pytest.mark.parametrize(("method", "order", "n"), [("euler", 1, 64), ("midpoint", 2, 32), ("rk4", 4, 16)])
def test_the_map_converges_with_the_methods_order(method, order, n):
    x = PLANE.source.sample(20, 0)
    exact = blend(PLANE.velocity, x, even(128), method="rk4")
    coarse, fine = (float((blend(PLANE.velocity, x, even(k), method=method) - exact).abs().max()) for k in (n, 2 * n))
    assert abs(math.log2(coarse / fine) - order) < (0.15 if order < 3 else 0.35)


def test_the_map_carries_one_law_to_the_other():
    """Mean and covariance of 2000 carried draws, within 5 standard errors; the random walk's too, which in few steps is right as well."""
    x = PLANE.source.sample(2000, 5)
    target = PLANE.target.gaussian().covariance.dense()
    for out in (blend(PLANE.velocity, x, even(16), method="midpoint"), random_blend(PLANE.draw, x, even(3), 0)):
        error = torch.sqrt(target.diagonal() / 2000)
        assert bool(((out.mean(0) - PLANE.target.mean).abs() < 5 * error).all())
        assert float((torch.cov(out.T) - target).abs().max()) < 5 * float(target.max()) * math.sqrt(2 / 2000)


def test_the_random_walk_nears_the_map():
    x = PLANE.source.sample(100, 1)
    exact = blend(PLANE.velocity, x, even(64), method="rk4")
    far, near = (float((random_blend(PLANE.draw, x, even(n), 7) - exact).square().mean().sqrt()) for n in (8, 128))
    # 16 times the steps: a quarter of the distance, with sampling error
    assert 0.15 < near / far < 0.4


def test_from_gaussian_noise_it_is_ddim_and_euler_on_a_straight_line():
    source = mixture([[0.0, 0.0]], [1.0])
    world, x, process = Blend(source, PLANE.target), source.sample(9, 0), FlowMatching()
    times = [1 - a for a in even(12)]
    mine = blend(world.velocity, x, even(12))
    for solver, ends in ((ddim(), times), (RungeKutta("euler"), times)):
        other = run(solver.compile(process, ends), PLANE.target.denoiser(process).denoise, x)
        assert float((mine - other).abs().max()) < 1e-12


def test_predictions_of_the_sides_give_the_same_steps():
    x, late = PLANE.source.sample(9, 0), [0.1, 0.4, 0.8, 1.0]
    mine = blend(PLANE.velocity, x, [0.0, *late])
    target = blend(lambda x, a: PLANE.sides(x, a).target, x, [0.0, *late], predicts="target")
    source = blend(lambda x, a: PLANE.sides(x, a).source, x + 0.1 * PLANE.velocity(x, 0.0), late, predicts="source")
    assert float((mine - target).abs().max()) < 1e-12
    assert float((mine - source).abs().max()) < 1e-12


def test_a_walk_does_not_depend_on_its_batch():
    x = PLANE.source.sample(6, 0)
    whole = random_blend(PLANE.draw, x, even(4), 3)
    assert float((random_blend(PLANE.draw, x[:2], even(4), 3) - whole[:2]).abs().max()) < 1e-12


X = PLANE.source.sample(3, 0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: blend(PLANE.velocity, X, [0.0, 0.5, 0.9]),
        lambda: blend(PLANE.velocity, X, [0.1, 1.0]),
        lambda: blend(PLANE.velocity, X, [0.0, 0.6, 0.6, 1.0]),
        lambda: blend(PLANE.velocity, X, even(4), predicts="source"),
        lambda: blend(PLANE.velocity, X, even(4), predicts="target", method="rk4"),
        lambda: _slope(PLANE.velocity, X, 0.0, "source"),
        lambda: _slope(PLANE.velocity, X, 1.0, "target"),
        lambda: blend(PLANE.velocity, X, even(4), predicts="noise"),
        lambda: blend(PLANE.velocity, X, even(4), method="rk5"),
        lambda: random_blend(PLANE.draw, X, [1.0], 0),
        lambda: PLANE.sides(X, 1.5),
        lambda: Blend(PLANE.source, LINE.target),
        lambda: Blend(mixture([[0.0, 0.0]], [0.0]), PLANE.target),
    ],
)
def test_what_makes_no_sense_is_refused(make):
    with pytest.raises((ArgumentError, ShapeError, TypeCheckError)):
        make()
