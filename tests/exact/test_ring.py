"""The noisy ring: score and divergence against autograd and quadrature, posterior mean against Bayes' rule, the centre and far away."""

import math

import pytest
import torch
from scipy.integrate import quad

from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import Ring
from sfumato.noise import EDM, FlowMatching, VariancePreserving

F64 = torch.float64
RING = Ring(2.0, 0.5)


def points(n=40, scale=2.0):
    return scale * torch.randn(n, 2, dtype=F64, generator=torch.Generator().manual_seed(0))


def test_density_integrates_to_one():
    """Independent of the Bessel functions' formula: SciPy's adaptive quadrature over the radius."""
    mass, _ = quad(lambda r: 2 * math.pi * r * float(RING.log_prob(torch.tensor([[0.6 * r, 0.8 * r]], dtype=F64)).exp()), 0, 6)
    assert abs(mass - 1) < 1e-9


@pytest.mark.parametrize("scale", [1e-4, 0.02, 2.0, 30.0])
def test_score_and_divergence_are_autograds(scale):
    """From the centre, where the series is used, to arguments of the Bessel functions beyond 200."""
    x = points(scale=scale).requires_grad_()
    (score,) = torch.autograd.grad(RING.log_prob(x).sum(), x, create_graph=True)
    # the derivative of |x| cancels near the centre
    torch.testing.assert_close(RING.score(x), score, rtol=1e-9, atol=1e-11)
    trace = sum(torch.autograd.grad(RING.score(x)[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(2))
    torch.testing.assert_close(RING.score_divergence(x), trace, rtol=1e-8, atol=1e-10)


def test_centre_and_thin_ring_are_finite():
    """At the centre div s = (R^2/v - 2)/v; a Bessel argument of 4e6 would overflow unscaled."""
    x = torch.zeros(1, 2, dtype=F64, requires_grad=True)
    assert float(RING.score_divergence(x.detach())) == pytest.approx((4 / 0.25 - 2) / 0.25)
    (first,) = torch.autograd.grad(RING.score_divergence(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first[:, 0].sum(), x)
    assert torch.isfinite(second).all()
    thin = Ring(2.0, 1e-3)
    at = torch.tensor([[2.001, 0.0]], dtype=F64)
    # far inside the ring's flat limit the score is that of a line, -(r - R)/v - 1/(2 r)
    assert float(thin.score(at)[0, 0]) == pytest.approx(-1e-3 / 1e-6 - 1 / (2 * 2.001), rel=1e-6)


@pytest.mark.parametrize(("process", "t"), [(EDM(2.0), 0.4), (VariancePreserving(), 0.3), (FlowMatching(), 0.6)])
def test_noisy_ring_is_a_ring_and_tweedie_holds(process, t):
    """The exact denoiser's score (alpha D - x)/sigma^2 is the score of the law of x_t, per-sample times included."""
    x = points()
    denoiser, noisy = RING.denoiser(process), RING.through(process, t)
    torch.testing.assert_close(denoiser.score(x, t), noisy.score(x), rtol=0, atol=1e-10)
    times = torch.linspace(0.1, 0.9, len(x), dtype=F64)
    each = torch.cat([denoiser.denoise(x[i : i + 1], float(times[i])) for i in range(len(x))])
    torch.testing.assert_close(denoiser.denoise(x, times), each, rtol=0, atol=1e-13)


def test_posterior_mean_is_bayes_rule_over_the_circle():
    """E[x_0 | x] by 2000 points of the circle and a Gaussian posterior for each; exact where no signal and where no noise is left."""
    process, t, x = VariancePreserving(), 0.35, points(6)
    alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
    angle = torch.linspace(0, 2 * math.pi, 2001, dtype=F64)[:-1]
    circle = 2.0 * torch.stack([angle.cos(), angle.sin()], 1)
    spread = (alpha * 0.5) ** 2 + sigma**2
    weight = torch.softmax(-((x[:, None] - alpha * circle) ** 2).sum(-1) / (2 * spread), 1)
    centre = weight @ circle
    expected = centre + alpha * 0.25 / spread * (x - alpha * centre)
    torch.testing.assert_close(RING.posterior_mean(x, process, t), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(RING.posterior_mean(x, process, 0.0), x, rtol=0, atol=1e-14)
    torch.testing.assert_close(RING.posterior_mean(x, FlowMatching(), 1.0), torch.zeros_like(x), rtol=0, atol=0)


def test_samples_have_the_rings_moments():
    """E r^2 = R^2 + 2 w^2 within 4 standard errors of 20000 samples; sample 7 does not depend on the batch."""
    x = RING.sample(20_000, 3)
    square = x.square().sum(1)
    assert abs(float(square.mean()) - 4.5) < 4 * float(square.std()) / math.sqrt(20_000)
    assert float(x.mean(0).abs().max()) < 4 * math.sqrt(2.25 / 20_000)
    assert torch.equal(x[7:9], RING.sample(2, 3, first=7))


def test_bad_input():
    with pytest.raises(ArgumentError, match="radius"):
        Ring(0.0, 1.0)
    with pytest.raises(ArgumentError, match="no density"):
        Ring(1.0, 0.0).score(points())
    with pytest.raises(ArgumentError, match="noisy time"):
        Ring(1.0, 0.0).posterior_mean(points(), EDM(), 0.0)
    with pytest.raises(ArgumentError, match="signal left"):
        RING.through(FlowMatching(), 1.0)
    with pytest.raises(ShapeError):
        RING.denoiser(EDM()).denoise(torch.zeros(2, 3), 0.5)
    with pytest.raises(ArgumentError, match="condition"):
        RING.denoiser(EDM()).denoise(points(), 0.5, torch.zeros(40))
