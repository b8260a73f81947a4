"""Flows of noise given data: autograd, the diffusion they contain, and marginals that no volatility changes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from sfumato.errors import ArgumentError
from sfumato.learn.forward.forward_flow import CouplingForward, NeuralAffine, ScalarForward
from sfumato.learn.forward.neural_flow_forward import (
    KnotVolatility,
    NetVolatility,
    SkipPredictor,
    conditional_curvature,
    conditional_path,
    flow_bound,
    flow_loss,
    generate_flow,
    generative_curvature,
)
from sfumato.metrics import energy_distance
from sfumato.noise import FlowMatching, VariancePreserving
from sfumato.seeds import noise

PROCESS = VariancePreserving()


class _Net(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.layers = nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 2)).double()

    def forward(self, x, t):
        return self.layers(torch.cat([x, t[:, None]], 1))


def _coupling() -> CouplingForward:
    flow = CouplingForward(2, 8, 0.1).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in flow.parameters():
            p.copy_(0.5 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return flow


def _draws(n: int = 6):
    generator = torch.Generator().manual_seed(1)
    x, eps = (torch.randn(n, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    return x, torch.linspace(0.1, 0.9, n, dtype=torch.float64), eps


@pytest.mark.parametrize("flow", [NeuralAffine(_Net(0), _Net(1), 0.1), _coupling()], ids=["affine", "coupling"])
def test_inverse_determinant_velocity_and_score_agree_with_autograd(flow):
    x, t, eps = _draws()
    with torch.no_grad():
        z = flow.place(eps, t, x)
        back, log_det = flow.noise_of(z, t, x)
        torch.testing.assert_close(back, eps)
        for i in range(len(x)):
            jacobian = torch.autograd.functional.jacobian(lambda y, i=i: flow.noise_of(y[None], t[i : i + 1], x[i : i + 1])[0][0], z[i])
            assert float(log_det[i]) == pytest.approx(float(torch.linalg.det(jacobian).abs().log()), abs=1e-9)
        step = 1e-5
        torch.testing.assert_close(
            flow.velocity(z, t, x), (flow.place(eps, t + step, x) - flow.place(eps, t - step, x)) / (2 * step), rtol=0, atol=1e-7
        )
        second = (flow.place(eps, t + 1e-3, x) - 2 * flow.place(eps, t, x) + flow.place(eps, t - 1e-3, x)) / 1e-6
        torch.testing.assert_close(conditional_curvature(flow, x, t, eps), second.square().sum(1), rtol=1e-3, atol=1e-4)
    y = z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(flow.log_density(y, t, x).sum(), y)
    torch.testing.assert_close(flow.score(z, t, x).detach(), gradient)


def test_a_fixed_process_has_the_diffusion_bound_and_the_usual_volatility_is_the_best(g4):
    """`int e^{2 lam} |lam'| |x - D|^2 dt`; half and double `g^2` cost `(u + 1/u + 2)/4 = 1.125` times as much."""
    x, t, eps = g4.sample(6, 0), *_draws()[1:]
    denoiser = g4.denoiser(PROCESS)
    z = PROCESS.sample(x, t, eps)
    rate = PROCESS.diffusion_squared(t) / (2 * PROCESS.sigma(t) ** 2)
    expected = (PROCESS.alpha(t) / PROCESS.sigma(t)) ** 2 * rate * (x - denoiser.denoise(z, t)).square().sum(1)
    for share, cost in ((1.0, 1.0), (0.5, 1.125), (2.0, 1.125)):
        found = flow_loss(ScalarForward(PROCESS), denoiser.denoise, lambda u, c=share: c * PROCESS.diffusion_squared(u), x, t, eps)
        torch.testing.assert_close(found, cost * expected, rtol=1e-9, atol=1e-12)


def test_a_perfect_prediction_costs_nothing_and_everything_has_gradients():
    x, t, eps = _draws()
    for flow in (NeuralAffine(_Net(0), _Net(1)), _coupling()):
        assert float(flow_loss(flow, lambda z, u: x, NetVolatility(), x, t, eps).detach().abs().max()) == 0
        volatility, predictor = KnotVolatility(0.0, 1.0, 4), SkipPredictor(_Net(2))
        flow_loss(flow, predictor, volatility, x, t, eps).mean().backward()
        parts = [*flow.parameters(), *predictor.parameters(), *volatility.parameters()]
        assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in parts)


def test_the_bound_of_a_gaussian_is_tight_for_the_exact_prediction():
    """Unit data under the process itself: the bound is the entropy, up to the ends' decoder and prior."""
    x = torch.randn(400, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    first = float(PROCESS.time(3.0))

    def predictor(z, t):
        return PROCESS.alpha(t)[:, None] * z

    variance = -2 * float(PROCESS.half_log_snr(first))
    found = flow_bound(
        ScalarForward(PROCESS), predictor, PROCESS.diffusion_squared, x, log_variance=variance, ends=(first, 0.9999), draws=64
    )
    exact = 0.5 * math.log(2 * math.pi) + 0.5 * float(x.square().mean())
    error = float(found.standard_error.square().sum().sqrt()) / len(x)
    assert error < 0.1
    assert float(found.total.mean()) == pytest.approx(exact, abs=3 * error)
    wrong = flow_bound(
        ScalarForward(PROCESS),
        lambda z, t: 0.5 * predictor(z, t),
        PROCESS.diffusion_squared,
        x,
        log_variance=variance,
        ends=(first, 0.9999),
    )
    assert float(wrong.total.mean()) > exact + 10 * error  # the negative control


def test_the_volatility_does_not_change_the_marginals():
    flow = NeuralAffine(_Net(0), _Net(1), 0.3)
    n, times = 1000, torch.linspace(0.0, 0.6, 41, dtype=torch.float64).tolist()
    x, draws = torch.tensor([[0.7, -0.4]], dtype=torch.float64).expand(n, 2), noise(0, n, (2,), dtype=torch.float64)
    with torch.no_grad():
        start = flow.place(draws.draw(1000), torch.zeros(n, dtype=torch.float64), x)
        expected = flow.place(draws.draw(1001), torch.full((n,), 0.6, dtype=torch.float64), x)
    for value in (0.3, 2.0):
        end = conditional_path(flow, x, start, times, (KnotVolatility(0.0, 1.0, 2, value), draws))
        found = energy_distance(end, expected)
        assert found.value < 3 * found.standard_error
    shifted = energy_distance(expected + 0.2, expected)
    assert shifted.value > 3 * shifted.standard_error  # the negative control: what the distance can see


def test_generative_curvature_and_euler_steps_of_a_gaussian():
    """Data of variance 2 under straight lines: paths are `sqrt((1-t)^2 2 + t^2)`, whose second derivative is `2 / V^{3/2}`."""
    process, z = FlowMatching(), torch.tensor([[1.3], [-0.4]], dtype=torch.float64)

    def predictor(y, t):
        alpha, sigma = process.levels(t)
        return (2 * alpha / (2 * alpha**2 + sigma**2))[:, None] * y

    flow, t = ScalarForward(process), torch.tensor([0.3, 0.7], dtype=torch.float64)
    v = 2 * (1 - t) ** 2 + t**2
    torch.testing.assert_close(generative_curvature(flow, predictor, z, t), (z[:, 0] * 2 / v**2).square())
    ends = [generate_flow(flow, predictor, z, torch.linspace(0.95, 0.05, n + 1, dtype=torch.float64).tolist()) for n in (25, 50)]
    exact = z * math.sqrt((2 * 0.95**2 + 0.05**2) / (2 * 0.05**2 + 0.95**2))
    errors = [float((end - exact).abs().max()) for end in ends]
    assert errors[1] < 0.05
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.15)


def test_bad_input():
    x, t, eps = _draws()
    flow = NeuralAffine(_Net(0), _Net(1))
    with pytest.raises(ArgumentError, match="volatility"):
        flow_loss(flow, lambda z, u: z, torch.zeros_like, x, t, eps)
    with pytest.raises(ArgumentError, match="falling"):
        generate_flow(flow, lambda z, u: z, x, (0.1, 0.5))
    for make in (lambda: NeuralAffine(_Net(0), _Net(1), 2.0), lambda: CouplingForward(1), lambda: KnotVolatility(0.0, 1.0, 1)):
        with pytest.raises(ArgumentError):
            make()
    with pytest.raises(ArgumentError):
        NetVolatility(floor=0.0)
