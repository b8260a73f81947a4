"""Gaussian increments of nonlinear SDEs: exact for linear drifts, orders of accuracy, diagonal against dense."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from sfumato.errors import ArgumentError
from sfumato.noise.general.nonlinear import NonlinearSDE, _phi1, _phi2, coupled_angles, double_well, logistic, predator_prey, towards


def _states(n: int = 5):
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x, torch.full((n,), 0.2, dtype=torch.float64)


def test_a_linear_drift_is_exact_also_with_a_drift_that_grows_in_time():
    """`dx = (-x + t) dt + g dw`: mean `x e^{-h} + s (1 - e^{-h}) + h - 1 + e^{-h}`, variance `g^2 (1 - e^{-2h})/2`, at any `h`."""
    x, s = _states()
    h = torch.tensor([1e-6, 1e-3, 0.1, 1.0, 4.0], dtype=torch.float64)
    step, start = h[:, None], s[:, None]
    mean = x * torch.exp(-step) - start * torch.expm1(-step) + step + torch.expm1(-step)
    std = (-0.49 * torch.expm1(-2 * step) / 2).sqrt()
    for separable in (True, False):
        found = NonlinearSDE(lambda y, t: -y + t[:, None], 0.7, separable).increment(x, s, h)
        torch.testing.assert_close(found.mean, mean, rtol=1e-10, atol=1e-13)
        root = found.root if separable else torch.diagonal(found.root, dim1=1, dim2=2)
        torch.testing.assert_close(root, std.expand_as(root), rtol=1e-9, atol=0)


def test_diagonal_and_dense_routes_agree():
    x, s = _states()
    h = torch.full((5,), 0.05, dtype=torch.float64)
    well = double_well(0.5)
    fast, full = well.increment(x, s, h), NonlinearSDE(well.drift, well.noise).increment(x, s, h)
    torch.testing.assert_close(full.mean, fast.mean)
    torch.testing.assert_close(torch.diagonal(full.root, dim1=1, dim2=2), fast.root)
    eps = torch.ones_like(x)
    for call in (lambda i: i.place(eps), lambda i: i.score(eps), lambda i: i.scaled(eps)):
        torch.testing.assert_close(call(full), call(fast))


@pytest.mark.parametrize("sde", [coupled_angles(), predator_prey(), logistic()], ids=["angles", "predators", "logistic"])
def test_orders_of_the_mean_without_noise(sde):
    """Against a fine solution of `dx/dt = f`: Euler's mean errs by `h^2`, the linearised one by `h^3`."""
    from scipy.integrate import solve_ivp

    x, s = _states(1)
    quiet = NonlinearSDE(sde.drift, 1e-6, sde.separable)

    def rate(_, y):
        return sde.drift(torch.from_numpy(y)[None], s)[0].numpy()

    slopes = []
    for order in (0, 1):
        errors = []
        for h in (0.1, 0.05):
            exact = torch.from_numpy(solve_ivp(rate, (0, h), x[0].numpy(), "DOP853", rtol=1e-12, atol=1e-13).y[:, -1])
            errors.append(float((quiet.increment(x, s, torch.full((1,), h, dtype=torch.float64), order).mean[0] - exact).norm()))
        slopes.append(math.log2(errors[0] / errors[1]))
    assert slopes[0] == pytest.approx(2, abs=0.15)
    assert slopes[1] == pytest.approx(3, abs=0.2)


def test_the_dense_law_agrees_with_its_score():
    """`score(eps)` is the gradient of the density at `place(eps)`."""
    x, s = _states()
    found = coupled_angles().increment(x, s, torch.full((5,), 0.3, dtype=torch.float64))
    eps = torch.randn(5, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = found.place(eps).requires_grad_()
    law = torch.distributions.MultivariateNormal(found.mean, scale_tril=found.root)
    (gradient,) = torch.autograd.grad(law.log_prob(y).sum(), y)
    torch.testing.assert_close(found.score(eps), gradient)
    covariance = found.root @ found.root.mT
    assert float((covariance[:, 0, 1] / covariance[:, 0, 0]).abs().max()) > 1e-2  # the control: the numbers are coupled


def test_bad_input():
    x, s = _states()
    h = torch.full((5,), 0.1, dtype=torch.float64)
    with pytest.raises(ArgumentError, match="positive g"):
        towards(torch.sin, 0.0)
    with pytest.raises(ArgumentError, match="order"):
        logistic().increment(x, s, h, 2)
    with pytest.raises(ArgumentError, match="order, h"):
        logistic().increment(x, s, 0 * h)
    for separable in (True, False):
        with pytest.raises(ArgumentError, match="shorter"):
            NonlinearSDE(lambda y, t: 50 * y, 1.0, separable).increment(x, s, h)
        # one direction that grows is enough, beside one that shrinks
        with pytest.raises(ArgumentError, match="shorter"):
            NonlinearSDE(lambda y, t: y * torch.tensor([50.0, -50.0], dtype=y.dtype), 1.0, separable).increment(x[:, :2], s, h)


def test_the_functions_of_a_step_keep_their_digits_on_both_sides_of_where_the_series_ends():
    """`phi_1 = (e^z - 1)/z` and `phi_2 = (e^z - 1 - z)/z^2` by their whole series, in exact fractions.

    Below 1e-2 the first term that is left out is `z^4/720`, 3e-11 of 1/2.
    """
    z = [Fraction(v) for v in ("-2", "-0.011", "-0.0099", "-0.001", "0", "0.0099", "0.011", "0.7")]
    for function, first, digits in ((_phi1, 1, 1e-14), (_phi2, 2, 3e-11)):
        exact = [float(sum(v**k / math.factorial(k + first) for k in range(30))) for v in z]
        found = function(torch.tensor([float(v) for v in z], dtype=torch.float64)).tolist()
        assert found == pytest.approx(exact, rel=digits)


def test_drifts_by_hand():
    """`g^2/2` times the score of the law that is named, and Lotka and Volterra's equations."""
    x, t = torch.tensor([[0.3, -1.2]], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    a, b = x[0].tolist()
    wells = [[-4 * v * (v * v - 1) for v in (a, b)]]
    pull = [[-math.sin(a) - math.sin(a - b), -math.sin(b) + math.sin(a - b)]]
    cases = [
        (logistic(), 1.0, [[-math.tanh(v / 2) / 2 for v in (a, b)]]),
        (logistic(0.7, 2.0), 2.0, [[-2 * math.tanh(v / 1.4) / 0.7 for v in (a, b)]]),
        (double_well(), 1.0, [[w / 2 for w in wells[0]]]),
        (double_well(0.5, 2.0), 2.0, wells),
        (coupled_angles(), 1.0, [[p / 2 for p in pull[0]]]),
        (coupled_angles(3.0, 2.0), 2.0, [[6 * p for p in pull[0]]]),
        (predator_prey(), 0.1, [[a * (1 - b), b * (a - 1)]]),
        (predator_prey((2.0, 3.0, 5.0, 7.0), 0.4), 0.4, [[a * (2 - 3 * b), b * (7 * a - 5)]]),
    ]
    for sde, noise, drift in cases:
        torch.testing.assert_close(sde.drift(x, t), torch.tensor(drift, dtype=torch.float64), rtol=1e-13, atol=1e-14)
        assert sde.noise == noise
    assert (NonlinearSDE(torch.sin, 1.0).separable, NonlinearSDE(torch.sin, 1.0).growth) == (False, 3.0)
    assert [sde.separable for sde, _, _ in cases[::2]] == [True, True, False, False]
    plain = towards(lambda y: 3 * y)
    assert (plain.noise, plain.separable) == (1.0, False)
    torch.testing.assert_close(plain.drift(x, t), 1.5 * x, rtol=1e-14, atol=0)
    torch.testing.assert_close(towards(lambda y: 3 * y, 2.0, True).drift(x, t), 6 * x, rtol=1e-14, atol=0)
