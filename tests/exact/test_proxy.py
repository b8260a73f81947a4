"""The proxy covariance is the Hessian identity, the posterior's spread and the limit of draws from it."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.errors import ArgumentError
from sfumato.exact import Empirical, Gaussian, SpectralCovariance
from sfumato.exact.draws import law_sample, posterior_sample
from sfumato.exact.learning.proxy import posterior_covariance, posterior_variance, proxy_covariance, proxy_variance
from sfumato.noise import EDM, FlowMatching, VariancePreserving

PROCESS = VariancePreserving()


def places(n, dim, seed=0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_two_points_have_the_sech_formula():
    """Points +-m: C = (alpha m / sigma^2)^2 sech^2(alpha m x / sigma^2)."""
    m, x = 0.8, torch.linspace(-2, 2, 21, dtype=torch.float64)[:, None]
    law = Empirical(torch.tensor([[m], [-m]], dtype=torch.float64))
    for t in (0.1, 0.3, 0.6):
        alpha, variance = float(PROCESS.alpha(t)), float(PROCESS.sigma(t)) ** 2
        exact = (alpha * m / variance) ** 2 / torch.cosh(alpha * m * x[:, 0] / variance) ** 2
        torch.testing.assert_close(proxy_covariance(law, x, PROCESS, t)[:, 0, 0], exact, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(proxy_variance(law, x, PROCESS, t), exact, rtol=1e-7, atol=1e-8)


def test_it_is_the_hessian_of_the_log_density_plus_the_noises_precision(g4):
    """C = I/sigma^2 + Hess log p_t; without the first term it is not (the negative control)."""
    x, t = places(20, 2), 0.3
    hessian = g4.through(PROCESS, t).hessian(x)
    precision = torch.eye(2, dtype=torch.float64) / float(PROCESS.sigma(t)) ** 2
    torch.testing.assert_close(proxy_covariance(g4, x, PROCESS, t), precision + hessian, rtol=1e-8, atol=1e-9)
    assert float((proxy_covariance(g4, x, PROCESS, t) - hessian).abs().max()) > 1


def test_covariance_agrees_with_the_mixtures_own(g4):
    x = places(20, 2, 1)
    torch.testing.assert_close(posterior_covariance(g4, x, PROCESS, 0.2), g4.posterior_covariance(x, PROCESS, 0.2), rtol=1e-8, atol=1e-9)


def test_variance_of_a_mixture_is_the_trace_of_its_covariance(g4):
    x, t = places(20, 2, 1), 0.2
    trace = g4.posterior_covariance(x, PROCESS, t).diagonal(dim1=1, dim2=2).sum(1)
    torch.testing.assert_close(posterior_variance(g4, x, PROCESS, t), trace, rtol=1e-9, atol=1e-10)
    alpha, sigma = (float(v) for v in PROCESS.levels(t))
    torch.testing.assert_close(proxy_variance(g4, x, PROCESS, t), alpha**2 / sigma**4 * trace, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("weighted", [False, True])
def test_trace_of_a_point_set_is_that_of_its_dense_covariance(weighted):
    """Two routes: blocked sums over points, and derivatives of the posterior mean; also for points noised before, shape (2, 3)."""
    points = places(40, 6, 2).reshape(40, 2, 3)
    law = Empirical(points + 5, torch.rand(40, generator=torch.Generator().manual_seed(0)) if weighted else None)
    for known in (law, law.through(EDM(), 0.005)):
        for t in (0.01, 0.1, 0.5):
            x = FlowMatching().sample(points[:10] + 5, t, places(10, 6, 3).reshape(10, 2, 3))
            dense = posterior_covariance(known, x, FlowMatching(), t)
            trace = torch.diagonal(dense, dim1=1, dim2=2).sum(1)
            torch.testing.assert_close(posterior_variance(known, x, FlowMatching(), t), trace, rtol=1e-8, atol=1e-12)


def test_power_of_the_target_splits_into_score_and_noise():
    """d / sigma^2 = E|s|^2 + E tr C: within 5 standard errors, which are 0.7 % here."""
    law, t = Empirical(places(12, 3, 4)), 0.25
    clean = law.sample(20000, 0)
    x = PROCESS.sample(clean, t, places(20000, 3, 5))
    power = law.denoiser(PROCESS).score(x, t).square().sum(1) + proxy_variance(law, x, PROCESS, t)
    assert float(power.mean()) == pytest.approx(3 / float(PROCESS.sigma(t)) ** 2, abs=5 * float(power.std()) / math.sqrt(20000))


def laws(g4):
    gaussian = Gaussian(torch.tensor([1.0, -1.0]), SpectralCovariance.diagonal(torch.tensor([2.0, 0.5], dtype=torch.float64)))
    return {"points": Empirical(places(5, 2, 6)), "mixture": g4, "gaussian": gaussian}


@pytest.mark.parametrize("name", ["points", "mixture", "gaussian"])
def test_draws_have_the_posteriors_mean_and_covariance(g4, name):
    """20,000 draws at one place: mean and covariance within 5 standard errors."""
    law, t, n = laws(g4)[name], 0.25, 20000
    x = torch.tensor([[0.3, -0.2]], dtype=torch.float64)
    drawn = posterior_sample(law, x.expand(n, 2), PROCESS, t, torch.Generator().manual_seed(1))
    covariance = posterior_covariance(law, x, PROCESS, t)[0]
    away = drawn - law.posterior_mean(x, PROCESS, t)
    assert float((away.mean(0).abs() / (covariance.diagonal() / n).sqrt()).max()) < 5
    products = away[:, :, None] * away[:, None]
    assert float(((products.mean(0) - covariance).abs() / (products.std(0) / math.sqrt(n))).max()) < 5


@pytest.mark.parametrize("name", ["points", "mixture", "gaussian"])
def test_draws_of_the_law_have_its_mean_and_covariance(g4, name):
    """4,000 draws: the mean within 5 standard errors; equal states give equal draws."""
    law = laws(g4)[name]
    drawn = law_sample(law, 4000, torch.Generator().manual_seed(1))
    assert float(((drawn.mean(0) - law.mean).abs() / (drawn.std(0) / math.sqrt(4000))).max()) < 5
    assert torch.equal(drawn, law_sample(law, 4000, torch.Generator().manual_seed(1)))


def test_draws_of_weighted_points_follow_the_weights():
    law = Empirical(torch.arange(4.0)[:, None], [0.5, 0.0, 0.2, 0.3])
    counts = torch.bincount(law_sample(law, 20000, torch.Generator().manual_seed(1))[:, 0].long(), minlength=4)
    assert counts[1] == 0
    assert float((counts / 20000 - torch.tensor([0.5, 0.0, 0.2, 0.3])).abs().max()) < 5 * math.sqrt(0.25 / 20000)


def test_meaningless_questions_are_refused(g4):
    x = places(2, 2)
    for t in (0.0, 1.0):
        with pytest.raises(ArgumentError, match="signal and noise"):
            proxy_covariance(g4, x, FlowMatching(), t)
    with pytest.raises(ArgumentError, match="points, a Gaussian"):
        posterior_sample(Empirical(x).through(PROCESS, 0.1), x, PROCESS, 0.2, torch.Generator())
