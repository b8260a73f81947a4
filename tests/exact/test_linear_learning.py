"""The learning of linear denoisers agrees with quadrature, with an ODE solver and with plain gradient descent; limits are exact."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_ivp
from scipy.special import expi

from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact.learning.filter_learning import LocalFilter, fourier_variances
from sfumato.exact.learning.linear_learning import OneLayer, TwoLayer, affine_weights, entire_exponential_integral

VARIANCES = (3.0, 1.0, 0.3, 0.05)
LEARNERS = (OneLayer(0.1), TwoLayer(0.1))


def by_quadrature(learner, variance, tau, sigma_max=80.0, sigma_min=0.002):
    """The variance through the flow's exponent, integrated over log sigma between the scales at which the integrand turns."""
    scales = [variance, 1 / (2 * tau), 1 / (8 * tau)] if tau else [variance]
    knots = sorted(math.log(s) / 2 for s in scales if sigma_min**2 < s < sigma_max**2)
    edges = [math.log(sigma_min), *knots, math.log(sigma_max)]

    def missing(u):
        return 1 - float(learner.weight(variance, math.exp(u), tau))

    parts = [quad(missing, a, b, epsabs=1e-14, epsrel=1e-13, limit=400)[0] for a, b in pairwise(edges)]
    return sigma_max**2 * math.exp(-2 * math.fsum(parts))


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda x: type(x).__name__)
@pytest.mark.parametrize("tau", [0.0, 0.01, 1.0, 100.0])
def test_generated_variance_is_the_flow_integrated(learner, tau):
    exact = learner.generated_variance(torch.tensor(VARIANCES), tau)
    for variance, value in zip(VARIANCES, exact.tolist(), strict=True):
        assert value == pytest.approx(by_quadrature(learner, float(torch.tensor(variance)), tau), rel=1e-12)


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda x: type(x).__name__)
@pytest.mark.parametrize("variance", [0.0, 0.3, 3.0])
def test_weights_follow_the_gradient(learner, variance):
    """Against an ODE solver on the gradient of `(w - 1)^2 l + w^2 sigma^2`, with `w = p^2` for two layers."""
    sigma = 0.7

    def slope(_, w):
        gradient = 2 * (w - 1) * variance + 2 * w * sigma**2
        return -gradient if isinstance(learner, OneLayer) else -gradient * 4 * w

    times = np.linspace(0, 2, 9)
    path = solve_ivp(slope, (0, 2), [0.1], "DOP853", times, rtol=1e-13, atol=1e-14).y[0]
    np.testing.assert_allclose(learner.weight(variance, sigma, torch.tensor(times)), path, rtol=1e-10)


def test_one_layer_response_is_the_published_formula():
    """Wang & Pehlevan's Phi in exponential integrals, whose constant drops out of ratios."""
    q, rate, tau, variance = 0.1, 0.7, 0.4, 0.3

    def phi(s):
        a = 2 * rate * tau
        return math.sqrt(variance + s**2) * math.exp(
            (1 - q) / 2 * expi(-a * s**2) * math.exp(-a * variance) - expi(-a * (variance + s**2)) / 2
        )

    learner = OneLayer(q, rate)
    ours = learner.log_response(variance, 0.01, tau) - learner.log_response(variance, 5.0, tau)
    assert float(ours) == pytest.approx(math.log(phi(0.01) / phi(5.0)), rel=1e-12)


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda x: type(x).__name__)
def test_limits(learner):
    """Untrained: `sigma^(1 - Q)`; trained for ever: the data's variance at `sigma_0`; a mode without variance: nothing but its noise."""
    v = torch.tensor([2.0, 0.5, 0.0], dtype=torch.float64)
    start = learner.generated_variance(v, 0.0, 10.0, 0.1)
    np.testing.assert_allclose(start, 100 * (0.1 / 10) ** (2 * 0.9), rtol=1e-13)
    near = learner.generated_variance(v, 1e-9, 10.0, 0.1)
    np.testing.assert_allclose(near, start, rtol=1e-5)
    end = learner.generated_variance(v[:2], 1e4, 10.0, 0.1)
    np.testing.assert_allclose(end, 100 * (v[:2] + 0.01) / (v[:2] + 100), rtol=1e-3)
    tiny = learner.generated_variance(1e-13, 0.8, 10.0, 0.1)
    assert float(learner.generated_variance(0.0, 0.8, 10.0, 0.1)) == pytest.approx(float(tiny), rel=1e-9)


def test_entire_exponential_integral_against_scipy():
    x = np.array([1e-12, 0.3, 0.999999, 1.0, 1.000001, 30.0, 1e6])
    by_terms = np.array([quad(lambda u: -math.expm1(-u) / u, 0, v, epsabs=1e-14)[0] for v in x[1:5]])
    ours = entire_exponential_integral(torch.tensor(x)).numpy()
    np.testing.assert_allclose(ours[1:5], by_terms, rtol=1e-12)
    np.testing.assert_allclose(ours[[0, 5, 6]], [1e-12 * (1 - 2.5e-13), *(np.euler_gamma + np.log(x[5:]) - expi(-x[5:]))], rtol=1e-13)
    assert float(entire_exponential_integral(torch.zeros(()))) == 0.0


def test_affine_weights_follow_plain_gradient_descent():
    """Data with a mean and a start of no symmetry, by many small steps of gradient descent (error of first order in the step)."""
    generator = torch.Generator().manual_seed(0)
    mean, bias = (torch.randn(3, generator=generator, dtype=torch.float64) for _ in range(2))
    root, weight = (torch.randn(3, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    covariance, sigma, tau = root @ root.T / 3, 0.5, 0.3

    def descend(steps):
        w, b = weight.clone(), bias.clone()
        for _ in range(steps):
            gap = (w - torch.eye(3)) @ mean + b
            gradient = 2 * ((w - torch.eye(3)) @ covariance + sigma**2 * w + torch.outer(gap, mean))
            w, b = w - tau / steps * gradient, b - tau / steps * 2 * gap
        return torch.cat([w.flatten(), b])

    coarse, fine = descend(500), descend(1000)
    exact = torch.cat([x.flatten() for x in affine_weights(mean, covariance, sigma, tau, weight, bias)])
    torch.testing.assert_close(2 * fine - coarse, exact, rtol=0, atol=1e-4)
    assert float((fine - exact).abs().max()) < 0.6 * float((coarse - exact).abs().max())


def test_centred_data_decouple_and_a_mean_makes_weights_overshoot():
    covariance, zero = torch.diag(torch.tensor([2.0, 0.2], dtype=torch.float64)), torch.zeros(2, dtype=torch.float64)
    start, bias = 0.1 * torch.eye(2, dtype=torch.float64), torch.tensor([1.0, -1.0], dtype=torch.float64)
    for tau in (0.0, 0.3, 5.0):
        weight, left = affine_weights(zero, covariance, 0.5, tau, start, bias, 0.7)
        torch.testing.assert_close(weight.diagonal(), OneLayer(0.1, 0.7).weight(covariance.diagonal(), 0.5, tau), rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(left, bias * math.exp(-1.4 * tau), rtol=1e-12, atol=1e-14)
    times = torch.linspace(0, 6, 61).tolist()
    best = covariance[1, 1] / (covariance[1, 1] + 0.25)

    def highest(mean):
        return max(float(affine_weights(mean, covariance, 0.5, t, start, zero)[0][1, 1]) for t in times)

    assert highest(torch.tensor([0.0, 2.0], dtype=torch.float64)) > 1.2 * best
    assert highest(zero) <= best


def images(n=200, side=6):
    generator = torch.Generator().manual_seed(1)
    white = torch.randn(n, side, side, generator=generator, dtype=torch.float64)
    return white + 0.8 * white.roll(1, 1) + 0.5 * white.roll((1, 1), (1, 2))


def test_full_width_filter_is_the_one_layer_learner_of_the_fourier_variances():
    spectrum = fourier_variances(images())
    full = LocalFilter(spectrum, (6, 6), 0.1, 0.3)
    one = OneLayer(0.1, 36 * 0.3)
    for tau in (0.0, 0.01, 0.1):
        torch.testing.assert_close(full.generated_variance(tau), one.generated_variance(spectrum, tau), rtol=1e-10, atol=0)


def test_local_filter_follows_plain_gradient_descent_on_the_images():
    """`torch`'s own circular convolution and autograd, on the exact expectation over the noise."""
    x, sigma, tau, rate = images(20), 0.6, 0.02, 0.4
    away = (x - x.mean(0))[:, None]
    start = 0.1 * torch.randn(3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    w, steps = start.clone().requires_grad_(), 1000
    padded = torch.nn.functional.pad(away, (1, 1, 1, 1), mode="circular")
    for _ in range(steps):
        seen = torch.nn.functional.conv2d(padded, w[None, None])
        loss = ((seen - away) ** 2).sum((1, 2, 3)).mean() + 36 * sigma**2 * w.square().sum()
        (gradient,) = torch.autograd.grad(loss, w)
        with torch.no_grad():
            w -= rate * tau / steps * gradient
    exact = LocalFilter(fourier_variances(x), (3, 3), start, rate).filter(sigma, tau)
    torch.testing.assert_close(w.detach(), exact, rtol=0, atol=2e-4)
    assert float((exact - start).abs().max()) > 0.1


def test_local_filter_generates_what_its_response_integrates_to():
    """Quadrature of the flow's exponent with the Fourier transform of `filter`, at an asymmetric start."""
    spectrum = fourier_variances(images())
    start = 0.1 * torch.randn(3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    local, tau, nodes = LocalFilter(spectrum, (3, 3), start), 0.02, 800
    grid = torch.zeros(6, 6, dtype=torch.float64)
    step = math.log(10.0 / 0.1) / nodes
    exponent = torch.zeros(6, 6, dtype=torch.float64)
    for i in range(nodes):
        sigma = 0.1 * math.exp((i + 0.5) * step)
        grid[:3, :3] = local.filter(sigma, tau)
        exponent += (1 - torch.fft.fftn(grid.roll((-1, -1), (0, 1))).real) * step
    torch.testing.assert_close(local.generated_variance(tau, 10.0, 0.1), 100 * torch.exp(-2 * exponent), rtol=1e-5, atol=0)


def test_the_sign_of_the_exponent_matters():
    """Negative control: a flow that expands by the exponent, as the lemma is often copied, is off by orders of magnitude."""
    learner = OneLayer(0.1)
    wrong = 80.0**2 * math.exp(-2 * float(learner.log_response(1.0, 0.002, 1.0) - learner.log_response(1.0, 80.0, 1.0)))
    assert wrong > 1e3 * by_quadrature(learner, 1.0, 1.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: OneLayer(0.1, 0.0),
        lambda: OneLayer(math.nan),
        lambda: TwoLayer(0.0),
        lambda: OneLayer(0.1).weight(-1.0, 1.0, 1.0),
        lambda: OneLayer(0.1).weight(0.0, 0.0, 1.0),
        lambda: OneLayer(0.1).generated_variance(1.0, 1.0, 1.0, 2.0),
        lambda: OneLayer(0.1).generated_variance(1.0, math.inf),
        lambda: LocalFilter(torch.ones(6, 6), (2, 3)),
        lambda: LocalFilter(-torch.ones(6, 6), (3, 3)),
        lambda: LocalFilter(torch.ones(6, 6), (3, 3)).filter(0.0, 1.0),
        lambda: LocalFilter(torch.ones(6, 6), (3, 3)).filter(1.0, -1.0),
        lambda: affine_weights(torch.zeros(2), torch.eye(2), -1.0, 1.0, torch.eye(2), torch.zeros(2)),
    ],
)
def test_numbers_that_mean_nothing_are_refused(make):
    with pytest.raises(ArgumentError):
        make()


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError):
        LocalFilter(torch.ones(6, 6), (3, 3), torch.ones(3, 1))
    with pytest.raises(ShapeError):
        fourier_variances(torch.ones(6))
