"""Flexible processes: what is held is held, and `exp(-H)` is stationary by the Fokker-Planck equation itself."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import Gaussian, SpectralCovariance, prior_gap
from sfumato.learn import LearnedFlexible
from sfumato.noise import Clock, CompleteRecipe, flexible
from sfumato.seeds import noise


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


LAW = Gaussian(f64([0.0, 3.0, 0.0]), SpectralCovariance.from_dense(torch.diag(f64([16.0, 1.0, 0.05]))))
LEARNED = {"drift": {"a", "b"}, "noise": {"root"}, "full": {"a", "b", "root"}, "diagonal": {"rates"}, "spectrum": {"rates"}}


@pytest.mark.parametrize("kind", LEARNED)
def test_what_is_held_is_held_and_only_what_is_learned_has_a_slope(kind):
    model = LearnedFlexible((3,), kind, first=3.0, last=3.0)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == LEARNED[kind]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    metric, rotation = (m.detach() for m in model.matrices())
    assert float(metric.trace()) == pytest.approx(3.0)
    assert float(torch.linalg.eigvalsh(metric)[0]) > 0
    assert torch.equal(rotation, -rotation.T)
    prior_gap(LAW, model.process()).backward()
    slopes = {name: float(p.grad.abs().max()) for name, p in model.named_parameters() if p.requires_grad}
    # a rotation under the metric 1 turns samples, and leaves the divergence as it is
    assert all((slope < 1e-10) == (kind == "drift") for slope in slopes.values())


def test_a_low_rank_rotation_has_that_rank():
    _, rotation = LearnedFlexible((6,), "drift", rank=1).matrices()
    assert int(torch.linalg.matrix_rank(rotation)) == 2
    for wrong in ({"rank": 0}, {"kind": "other"}):
        with pytest.raises((ArgumentError, TypeError)):
            LearnedFlexible((2,), **wrong)


def bumpy(x):
    return (1 + 0.8 * torch.sin(2 * x[:, :1, None])) * f64([[1.0, 0.3], [0.3, 0.7]])


def swirl(x):
    return 2 * torch.cos(x[:, 1:, None] + x[:, :1, None]) * f64([[0.0, 1.0], [-1.0, 0.0]])


def steepness(x):
    """`grad H` of `H = |x|^2/2 + cos(x_1)/2`."""
    return x + torch.stack([-torch.sin(x[:, 0]) / 2, 0 * x[:, 1]], 1)


def test_the_energys_law_is_stationary_by_the_fokker_planck_equation():
    """`-div(f p) + div div(beta R p)/2 = 0` for `p = exp(-H)`: with the current `J = f p - div(beta R p)/2`, `div J` by finite differences
    of exact currents; without the divergence of the fields in the drift it is not."""
    process = CompleteRecipe(bumpy, swirl, Clock(2.0, 2.0), steepness)

    def current(x, drift):
        x = x.detach().requires_grad_()
        p = torch.exp(-x.square().sum(1) / 2 - torch.cos(x[:, 0]) / 2)
        spread = 2.0 * bumpy(x) * p[:, None, None]
        rows = [sum(torch.autograd.grad(spread[:, i, j].sum(), x, retain_graph=True)[0][:, j] for j in range(2)) for i in range(2)]
        return (drift(x.detach()) * p[:, None] - torch.stack(rows, 1) / 2).detach()

    x, h = torch.randn(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), 1e-5

    def divergence(drift):
        steps = h * torch.eye(2, dtype=torch.float64)
        return sum((current(x + e, drift) - current(x - e, drift))[:, i] / (2 * h) for i, e in enumerate(steps)).abs().max()

    def blind(x):
        return -((bumpy(x) + swirl(x)) @ steepness(x)[..., None])[..., 0]

    assert float(divergence(lambda x: process.drift(x, 0.5))) < 1e-8
    assert float(divergence(blind)) > 0.1


def test_constant_fields_are_the_dense_linear_member():
    metric, rotation = f64([[0.6, 0.2], [0.2, 1.4]]), f64([[0.0, 2.0], [-2.0, 0.0]])
    process = CompleteRecipe(lambda x: metric.expand(len(x), 2, 2), lambda x: rotation.expand(len(x), 2, 2))
    member, x = flexible(metric, rotation), f64([[1.0, -0.5], [0.2, 3.0]])
    assert torch.allclose(process.drift(x, 0.3), member.drift(x, 0.3), rtol=0, atol=1e-14)
    root = member.coefs(0.3).covariance.cholesky()
    assert torch.allclose(process.noise(x, 0.3, x), root.apply(x), rtol=0, atol=1e-14)
    draws = noise(0, 2, (2,), dtype=torch.float64)
    once = process.simulate(x, (0.2, 0.3), draws)
    known = x + 0.1 * member.drift(x, 0.2) + math.sqrt(0.1) * member.coefs(0.2).covariance.cholesky().apply(draws.draw(1))
    assert torch.allclose(once, known, rtol=0, atol=1e-14)


def test_bad_fields_are_refused():
    x = torch.zeros(3, 2, dtype=torch.float64)
    with pytest.raises(ArgumentError, match="symmetries"):
        CompleteRecipe(bumpy, bumpy).drift(x, 0.5)
    with pytest.raises(ArgumentError, match="positive definite"):
        CompleteRecipe(lambda x: -bumpy(x), swirl).noise(x, 0.5, x)
    process = CompleteRecipe(bumpy, swirl)
    with pytest.raises(ShapeError):
        process.simulate(x, (0.0, 1.0), noise(0, 2, (2,)))
    with pytest.raises(ArgumentError, match="rise"):
        process.simulate(x, (0.5, 0.2), noise(0, 3, (2,)))
