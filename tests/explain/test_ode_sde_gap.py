"""The residual of a log-density is 0 for a diffusion's; for linear scores it explains the gap of flow and SDE exactly."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from sfumato.errors import ArgumentError, ShapeError
from sfumato.explain import linear_gap
from sfumato.learn import fit_linear_score, log_residual
from sfumato.noise import FlowMatching, VariancePreserving

F64 = torch.float64


def mixture(variance, x, t):
    """log p_t of two unequal modes in the plane, differentiable in t; variance-preserving with constant beta 2."""
    a = torch.exp(-t)
    spread = a**2 * variance + 1 - a**2
    modes = torch.tensor([[1.0, 0.5], [-0.7, 0.0]], dtype=F64)
    away = (x[:, None] - a[:, None, None] * modes).square().sum(2)
    return torch.logsumexp(torch.tensor([0.3, 0.7], dtype=F64).log() - away / (2 * spread[:, None]), 1) - torch.log(spread)


@pytest.mark.parametrize("probes", [False, True])
def test_the_residual_is_zero_for_the_log_density_of_a_diffusion_and_not_for_another(probes):
    process = VariancePreserving(2.0, 2.0)
    g = torch.Generator().manual_seed(0)
    x, t = torch.randn(6, 2, generator=g, dtype=F64), torch.linspace(0.1, 0.9, 6, dtype=F64)
    # in two dimensions the four sign vectors give the Laplacian exactly
    v = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=F64)[:, None].expand(2, 6, 2) if probes else None
    exact = log_residual(lambda y, s: mixture(0.2, y, s), process, x, t, probes=v)
    assert float(exact.detach().abs().max()) < 1e-10
    scaled = log_residual(lambda y, s: 1.1 * mixture(0.2, y, s), process, x, t, probes=v)
    assert float(scaled.detach().abs().min()) > 1e-3
    shifted = log_residual(lambda y, s: mixture(0.2, y, s) + s**2, process, x, t, probes=v)
    torch.testing.assert_close(shifted.detach(), 2 * t)  # a function of t alone is seen only through its rate


def test_the_residual_can_be_descended():
    """d/da of mean r^2 for u = -a x^2 / 2 agrees with a difference quotient."""
    process, x, t = VariancePreserving(), torch.linspace(-1, 1, 5, dtype=F64)[:, None], torch.full((5,), 0.5, dtype=F64)

    def loss(a):
        return log_residual(lambda y, s: -a * y.square().sum(1) / 2, process, x, t).square().mean()

    a = torch.tensor(0.7, dtype=F64, requires_grad=True)
    loss(a).backward()
    with torch.no_grad():
        quotient = (loss(torch.tensor(0.7 + 1e-6, dtype=F64)) - loss(torch.tensor(0.7 - 1e-6, dtype=F64))) / 2e-6
    assert float(a.grad) == pytest.approx(float(quotient), rel=1e-5)


def test_a_linear_scores_gap_is_the_integral_of_its_residual():
    """Flow and SDE of k = const by their closed forms (F = -1, g = 1), and U - V by the residual's chain."""
    k, prior, (a, b) = 1.3, 0.5, (0.1, 2.0)
    out = linear_gap(lambda t: k, lambda t: 0.0, (a, b), prior, 0.4)
    assert out.ode**2 == pytest.approx(prior * math.exp((2 - k) * (b - a)), rel=1e-8)
    rest = 1 / (2 * (k - 1))  # where U' = 2 (k - 1) U - 1 stands still
    assert out.sde**2 == pytest.approx(rest + (prior - rest) * math.exp(-2 * (k - 1) * (b - a)), rel=1e-8)
    assert out.driven == pytest.approx(out.sde**2 - out.ode**2, abs=1e-7)
    assert abs(out.driven) <= out.bound + 1e-9
    ax = Figure().subplots()
    out.plot(ax)
    assert len(ax.get_legend().get_texts()) == 2
    assert "apart" in out.meaning
    json.dumps(out.to_dict(), allow_nan=False)


def test_a_strong_penalty_leaves_only_solutions_of_the_equation():
    """k of exact data stays as it is; k of noisy data comes near a solution, and (control) not with a wrong sign."""
    t = np.geomspace(0.05, 2.0, 10)
    exact = 1 / (0.3 * np.exp(-2 * t) + (1 - np.exp(-2 * t)) / 2)
    kept = fit_linear_score(t.tolist(), exact.tolist(), [1.0] * 10, 1.0)
    assert kept.converged
    assert np.abs(np.array(kept.values) - exact).max() < 0.03
    noisy = exact * (1 + 0.2 * np.random.default_rng(0).normal(size=10))

    def gap(strength, quadratic=1.0):
        return linear_gap(
            *fit_linear_score(t.tolist(), noisy.tolist(), [1.0] * 10, strength, quadratic=quadratic).functions(), (0.05, 2.0), 0.5, 0.3
        ).gap

    free = gap(0.0)
    assert gap(10.0) < 0.3 * free
    assert gap(1.0, -1.0) > free


def test_bad_input():
    x, t = torch.zeros(2, 1, dtype=F64), torch.full((2,), 0.5, dtype=F64)
    with pytest.raises(ShapeError, match="u"):
        log_residual(lambda y, s: y, VariancePreserving(), x, t)
    with pytest.raises(ShapeError, match="probes"):
        log_residual(lambda y, s: y[:, 0], VariancePreserving(), x, t, probes=torch.zeros(1, 3, 1))
    with pytest.raises(ArgumentError, match="t"):
        log_residual(lambda y, s: y[:, 0], FlowMatching(), x, torch.ones(2, dtype=F64))
    with pytest.raises(ArgumentError, match="ends"):
        linear_gap(lambda t: 1.0, lambda t: 0.0, (1.0, 0.5), 0.5, 0.3)
    with pytest.raises(ArgumentError, match="times"):
        fit_linear_score([1.0, 0.5, 2.0], [1.0] * 3, [1.0] * 3, 1.0)
    with pytest.raises(ArgumentError, match="strength"):
        fit_linear_score([0.5, 1.0, 2.0], [1.0] * 3, [1.0] * 3, -1.0)
