"""Mixtures pushed through linear SDEs: against quadrature over the data, autograd, and the law's own scalar formulas."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import Gaussian, GaussianMixture, SpectralCovariance
from sfumato.exact.laws.push import PushedDenoiser, push
from sfumato.noise import LINEAR_SDES, VariancePreserving, cld, function_space, heat, ir_sde, linear, malda, mdm
from sfumato.noise.linear_family.linear_views import convert
from sfumato.noise.linear_family.path_bound import path_bound
from sfumato.seeds import noise


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture(scope="module")
def line():
    """Two modes on a line."""
    return GaussianMixture([0.4, 0.6], f64([[-1.0], [0.8]]), [SpectralCovariance.isotropic(1, v) for v in (0.1, 0.25)])


def states(process, n=6, seed=0, event=(1,)):
    shape = process.state_shape(torch.zeros(n, *event))
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("make", [cld, malda, ir_sde])
def test_density_and_denoiser_are_integrals_over_the_data(line, make):
    """The trapezoidal rule on 4001 points of `p(x_0) N(x; A x_0 + O y, S)`: nothing of mixtures is used."""
    process = make()
    y = f64([0.3]) if process.conditions else None
    x, law = states(process), process.marginal(0.4)
    grid = torch.linspace(-6, 6, 4001, dtype=torch.float64)[:, None]
    data = line.log_prob(grid).exp()
    means = law.mean(grid, None if y is None else y.expand(4001, 1)).flatten(1)
    normal = torch.distributions.MultivariateNormal(means, law.covariance.matrix((1,)))
    joint = normal.log_prob(x.flatten(1)[:, None]).exp() * data
    density = torch.trapezoid(joint, grid[:, 0])
    denoiser = PushedDenoiser(line, process, y)
    assert torch.allclose(denoiser.log_prob(x, 0.4), density.log(), rtol=0, atol=1e-10)
    assert torch.allclose(denoiser.denoise(x, 0.4)[:, 0], torch.trapezoid(joint * grid[:, 0], grid[:, 0]) / density, rtol=0, atol=1e-10)


IMAGES = ("function_space", "pixel_times", "blurring", "heat", "blurred_cld", "flexible_spectrum")


@pytest.mark.parametrize("name", [n for n in LINEAR_SDES if n not in IMAGES])
def test_the_score_is_the_gradient_of_the_log_density_and_tweedies(g4, name):
    process = LINEAR_SDES[name]()
    y = f64([0.3, -0.2]) if process.conditions and name != "agm" else None
    denoiser, x = PushedDenoiser(g4, process, y), states(process, event=(2,)).requires_grad_()
    (slope,) = torch.autograd.grad(denoiser.log_prob(x, 0.4).sum(), x)
    x = x.detach()
    score = denoiser.score(x, 0.4)
    assert torch.allclose(score, slope, rtol=1e-9, atol=1e-9)
    rows = None if y is None else y.expand(len(x), 2)
    assert torch.allclose(convert(process, denoiser.denoise(x, 0.4), "data", "score", x, 0.4, rows), score, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("make", [cld, ir_sde, LINEAR_SDES["flexible"]])
def test_views_of_an_exact_prediction_go_round(g4, make):
    """data -> every view -> data; the velocity goes back only where all channels have noise."""
    process = make()
    y = f64([0.3, -0.2]) if process.conditions else None
    x = states(process, event=(2,))
    rows = None if y is None else y.expand(len(x), 2)
    data = PushedDenoiser(g4, process, y).denoise(x, 0.4)
    back = ["score", "noise", "cholesky noise"] + (["velocity"] if process.channels == 1 else [])
    for view in back:
        there = convert(process, data, "data", view, x, 0.4, rows)
        assert torch.allclose(convert(process, there, view, "data", x, 0.4, rows), data, rtol=1e-9, atol=1e-9)
    velocity = PushedDenoiser(g4, process, y).velocity(x, 0.4)
    assert torch.allclose(convert(process, data, "data", "velocity", x, 0.4, rows), velocity, rtol=1e-9, atol=1e-9)


def test_a_scalar_process_gives_the_laws_own_answers(g4):
    process = VariancePreserving()
    pushed, x = PushedDenoiser(g4, linear(process)), states(linear(process), event=(2,))
    assert torch.allclose(pushed.denoise(x, 0.3), g4.posterior_mean(x, process, 0.3), rtol=0, atol=1e-12)
    assert torch.allclose(push(g4, linear(process), 0.3).log_prob(x), g4.through(process, 0.3).log_prob(x), rtol=0, atol=1e-12)


def test_the_posterior_has_the_denoisers_mean_and_one_time_per_sample_is_asked_one_by_one(g4):
    denoiser, x = PushedDenoiser(g4, cld()), states(cld(), event=(2,))
    assert torch.allclose(denoiser.posterior(x[0], 0.4).mean, denoiser.denoise(x, 0.4)[0], rtol=0, atol=1e-12)
    times = f64([0.2, 0.4, 0.2, 0.9, 0.4, 1.0])
    together = denoiser.denoise(x, times)
    assert torch.allclose(together, torch.cat([denoiser.denoise(x[i : i + 1], t) for i, t in enumerate(times)]), rtol=0, atol=1e-14)


def test_the_probability_flow_carries_the_prior_to_the_data(g4):
    """Runge-Kutta steps of order 4 from `push(1)` to `push(0.01)`: mean, covariance and the share of each mode within 4 standard errors."""
    process, n = cld(), 1000
    velocity, x = PushedDenoiser(g4, process).velocity, push(g4, process, 1.0).sample(n, 4)
    for t, s in itertools.pairwise((torch.linspace(1.0, 0.1, 21, dtype=torch.float64) ** 2).tolist()):
        h = s - t
        a = velocity(x, t)
        b = velocity(x + h / 2 * a, t + h / 2)
        c = velocity(x + h / 2 * b, t + h / 2)
        x = x + h / 6 * (a + 2 * b + 2 * c + velocity(x + h * c, s))
    end, flat = push(g4, process, 0.01), x.flatten(1)
    away = end.means - end.mean
    spread = torch.einsum("k,kij->ij", end.weights, torch.stack([c.dense() for c in end.covariances]) + away[:, :, None] * away[:, None])
    scale = spread.diag().sqrt()
    assert bool(((flat.mean(0) - end.mean).abs() < 4 * scale / n**0.5).all())
    assert bool(((flat.T.cov() - spread).abs() < 4 * (2 / n) ** 0.5 * scale[:, None] * scale).all())
    assert bool(((end.responsibilities(x).mean(0) - end.weights).abs() < 4 * (end.weights / n).sqrt()).all())


def test_the_path_bound_is_the_likelihood_less_the_prior_mismatch():
    """Gaussian data N(1.5, 4) under momentum with B = 2.5: `-H - KL(q_1 || prior)`, within 4 standard errors and 0.01 of quadrature."""
    process = mdm(torch.diag(f64([0.0, 2.0])), f64([[0.0, -1.0], [1.0, 0.0]]), first=2.5, last=2.5)
    data, n = Gaussian(f64([1.5]), SpectralCovariance.isotropic(1, 4.0)), 1500
    bound = path_bound(process, PushedDenoiser(data, process).score, data.sample(n, 3), noise(5, n, (2, 1), dtype=torch.float64), nodes=48)
    end = push(data, process, 1.0)
    spread, mean = end.covariances[0].dense(), end.means[0]
    mismatch = 0.5 * (spread.trace() + mean @ mean - 2 - spread.logdet())
    exact = -0.5 * math.log(2 * math.pi * math.e * 4) - float(mismatch)
    assert float(bound.mean()) == pytest.approx(exact, abs=4 * float(bound.std()) / n**0.5 + 0.01)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda g: push(g, cld(), f64([0.1, 0.2])), ShapeError, "single time"),
        (lambda g: push(g, ir_sde(), 0.5), ArgumentError, "drifts towards"),
        (lambda g: push(g, cld(), 0.5, f64([0.0, 0.0])), ArgumentError, "none"),
        (lambda g: push(g, ir_sde(), 0.5, f64([0.0])), ShapeError, "condition"),
        (lambda g: push(g, heat((2, 2)), 0.5), ShapeError, "operator's shape"),
        (
            lambda g: push(Gaussian(torch.zeros(300).double(), SpectralCovariance.isotropic(300, 1.0)), function_space((300,)), 0.5),
            ArgumentError,
            "256",
        ),
        (lambda g: PushedDenoiser(g, cld(spread=0.0)).score(states(cld(), event=(2,)), 0.0), ArgumentError, "density"),
        (lambda g: PushedDenoiser(g, cld()).score(states(cld(), event=(2,)), f64([0.1, 0.2])), ShapeError, "one time per sample"),
    ],
)
def test_what_cannot_be_pushed_is_named(g4, wrong, error, message):
    with pytest.raises(error, match=message):
        wrong(g4)


def test_the_posterior_knows_what_the_process_drifts_to(g4):
    """Under a condition the states are centred elsewhere; the posterior's mean is the denoiser's answer all the same."""
    denoiser = PushedDenoiser(g4, ir_sde(), f64([0.7, -0.4]))
    x = states(denoiser.process, n=1, event=(2,))
    assert torch.allclose(denoiser.posterior(x[0], 0.4).mean, denoiser.denoise(x, 0.4)[0], rtol=0, atol=1e-12)
