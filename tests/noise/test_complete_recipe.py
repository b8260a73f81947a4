"""Processes with a metric that depends on the state, against drifts written out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.errors import ArgumentError, ShapeError
from sfumato.noise import Clock
from sfumato.noise.general.complete_recipe import CompleteRecipe
from sfumato.seeds import noise

X = torch.tensor([[0.5, -1.0], [2.0, 0.3]], dtype=torch.float64)
TURN = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)


def bent(x):
    """`R = diag(1 + x_1^2, 2 + x_2^4)`."""
    return torch.diag_embed(torch.stack([1 + x[:, 0] ** 2, 2 + x[:, 1] ** 4], 1))


def turned(x):
    """`W = x_1 x_2 J`."""
    return (x[:, 0] * x[:, 1])[:, None, None] * TURN


RECIPE = CompleteRecipe(bent, turned, Clock(0.5, 3.0), lambda x: x**3)


def test_the_drift_is_the_formula_with_its_divergence():
    """`beta/2 (-(R + W) x^3 + div(R + W))`, the divergence by hand: `div R = (2 x_1, 4 x_2^3)`, `div W = (x_1, -x_2)`."""
    a, b = X.T
    spread = torch.stack([2 * a + a, 4 * b**3 - b], 1)
    pull = torch.stack([(1 + a**2) * a**3 + a * b * b**3, (2 + b**4) * b**3 - a * b * a**3], 1)
    torch.testing.assert_close(RECIPE.drift(X, 0.4), 1.5 / 2 * (spread - pull), rtol=1e-14, atol=1e-14)


def test_constant_fields_have_no_divergence_and_the_default_slope_is_the_state():
    recipe = CompleteRecipe(
        lambda x: 2 * torch.eye(2, dtype=torch.float64).expand(len(x), 2, 2), lambda x: TURN.expand(len(x), 2, 2), Clock(0.5, 3.0)
    )
    a, b = X.T
    torch.testing.assert_close(recipe.drift(X, 0.0), -0.25 * torch.stack([2 * a + b, 2 * b - a], 1), rtol=1e-14, atol=1e-14)


def test_noise_has_the_metric_for_its_square():
    draw = torch.tensor([[1.0, -2.0], [0.5, 1.0]], dtype=torch.float64)
    scale = torch.stack([(1 + X[:, 0] ** 2).sqrt(), (2 + X[:, 1] ** 4).sqrt()], 1)
    torch.testing.assert_close(RECIPE.noise(X, 0.4, draw), math.sqrt(1.5) * scale * draw, rtol=1e-14, atol=1e-14)


def test_simulation_is_eulers_with_one_draw_a_step():
    draws = noise(3, 2, (2,), dtype=torch.float64)
    x = X
    for i, (s, t) in enumerate([(0.0, 0.1), (0.1, 0.35)], 1):
        x = x + (t - s) * RECIPE.drift(x, s) + math.sqrt(t - s) * RECIPE.noise(x, s, draws.draw(i))
    torch.testing.assert_close(RECIPE.simulate(X, [0.0, 0.1, 0.35], draws), x, rtol=1e-14, atol=1e-14)
    assert torch.equal(RECIPE.simulate(X, [0.4], draws), X)
    assert torch.isfinite(RECIPE.simulate(X / 10, [0.0, 1.0], draws)).all()  # the whole of time


def test_what_would_not_leave_the_law_is_refused():
    eye = torch.eye(2, dtype=torch.float64).expand(2, 2, 2)
    for metric, rotation in ((eye + TURN / 100, 0 * eye), (eye, eye / 100), (eye, -eye / 100)):
        with pytest.raises(ArgumentError, match="symmetries"):
            CompleteRecipe(lambda x, m=metric: m, lambda x, w=rotation: w).drift(X, 0.5)
    for broken, refused in ((1.9e-6, False), (2.1e-6, True)):  # 1e-6 of 1 + |R|
        recipe = CompleteRecipe(lambda x: eye, lambda x, w=broken: torch.diag_embed(torch.full((2, 2), w / 2, dtype=torch.float64)))
        if refused:
            with pytest.raises(ArgumentError, match="symmetries"):
                recipe.drift(X, 0.5)
        else:
            recipe.drift(X, 0.5)
    with pytest.raises(ArgumentError, match="positive definite at 2"):
        CompleteRecipe(lambda x: -eye, lambda x: 0 * eye).noise(X, 0.5, X)
    draws = noise(3, 2, (2,), dtype=torch.float64)
    for times in ([0.3, 0.3], [0.5, 0.4], [-0.1, 0.5], [0.5, 1.1]):
        with pytest.raises(ArgumentError, match="rise"):
            RECIPE.simulate(X, times, draws)
    with pytest.raises(ShapeError, match="draws of the state"):
        RECIPE.simulate(X, [0.0, 0.5], noise(3, 3, (2,), dtype=torch.float64))
