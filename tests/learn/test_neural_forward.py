"""A transformed forward process against DDPM, a Gaussian's closed forms and the chain rule of marginals."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from sfumato.errors import ArgumentError
from sfumato.learn import FitSettings, descend
from sfumato.learn.forward.neural_forward import BlendTransform, NeuralForward, ResidualTransform, neural_bound, sample_neural
from sfumato.noise import VariancePreserving
from sfumato.sample.steps.reverse_chain import ReverseChain
from sfumato.seeds import noise

PROCESS = VariancePreserving()
TIMES = tuple(PROCESS.time(torch.linspace(-4, 4, 11, dtype=torch.float64)).tolist())


class _Bend(nn.Module):
    """A bounded nonlinear map of its own time."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

    def forward(self, x, t):
        return self.gain * torch.tanh(x + t[:, None])


def test_without_a_transform_every_step_is_ddpms():
    chain = ReverseChain(PROCESS, (*TIMES, 0.0))
    x, said = (torch.randn(10, 2, generator=torch.Generator().manual_seed(i), dtype=torch.float64) for i in (0, 1))
    t, s = (torch.tensor(v, dtype=torch.float64) for v in (TIMES[:-1], TIMES[1:]))
    expected = chain.divergence((x - said).square(), chain.log_betatilde[:10, None].expand(10, 2), slice(0, 10)).sum(1)
    torch.testing.assert_close(NeuralForward(PROCESS).step_divergence(x, said, s, t), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_reverse_steps_keep_the_marginals_for_every_variance(eta):
    """`E z_s = alpha_s F(x, s)` and `Var z_s = r^2 sigma_t^2 + v = sigma_s^2`."""
    forward = NeuralForward(PROCESS, BlendTransform(_Bend()), eta)
    x = torch.linspace(-2, 2, 6, dtype=torch.float64)[:, None]
    s, t = 0.3, 0.6
    r, v = forward.step(s, t)
    torch.testing.assert_close(forward.step_mean(forward.at(x, t), x, s, t), forward.at(x, s))
    assert float(r**2 * PROCESS.sigma(t) ** 2 + v) == pytest.approx(float(PROCESS.sigma(s) ** 2), rel=1e-12)
    moved = NeuralForward(PROCESS, BlendTransform(_Bend()), 1.0).step_mean(forward.at(x, t) + 0 * x, x, s, t - 0.1)
    assert float((moved - forward.at(x, s)).detach().abs().max()) > 1e-2  # the negative control: the step of another time


@pytest.mark.parametrize("kind", [BlendTransform, ResidualTransform])
def test_transforms_leave_clean_data_alone(kind):
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(kind(_Bend())(x, torch.zeros(4, dtype=torch.float64)), x)
    assert float((kind(_Bend())(x, torch.ones(4, dtype=torch.float64)) - x).detach().abs().max()) > 0.1


def test_the_bound_of_a_gaussian_is_above_its_entropy_and_training_the_transform_lowers_it():
    """`F = (1 + t p) x`, unit data, the exact posterior mean, 10 steps."""

    class Gain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p = nn.Parameter(torch.zeros((), dtype=torch.float64))

        def forward(self, x, t):
            return self.p * x

    net = Gain()
    forward = NeuralForward(PROCESS, ResidualTransform(net))
    x = torch.randn(256, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def predictor(z, t):
        alpha, sigma = PROCESS.levels(t)
        gain = alpha * (1 + t * net.p)
        return (gain / (gain**2 + sigma**2))[:, None] * z

    entropy = 0.5 * math.log(2 * math.pi * math.e)
    with torch.no_grad():
        before = neural_bound(forward, predictor, x, TIMES, draws=4)
    descend(
        net,
        lambda g: neural_bound(forward, predictor, x[:64], TIMES).total.mean(),
        FitSettings(15, learning_rate=0.5, warmup=3, ema_decay=0.5),
    )
    with torch.no_grad():
        after = neural_bound(forward, predictor, x, TIMES, draws=4)
    assert float(net.p.detach()) > 0.5
    assert entropy < float(after.total.mean()) < float(before.total.mean()) - 0.5
    assert float(before.total.mean()) - entropy == pytest.approx(4.895, abs=0.3)  # the closed form, within the draws' error


def test_samples_of_a_point_come_back_to_it_through_any_transform():
    """With `x_hat` constant every chain ends at it, and stochastic states have the law of `q(z_s | x)`."""
    forward = NeuralForward(PROCESS, BlendTransform(_Bend()))
    point = torch.tensor([[0.8, -1.1]], dtype=torch.float64)
    draws = noise(0, 4000, (2,), dtype=torch.float64)
    x = point.expand(4000, 2)
    start = forward.sample(x, 0.9, draws.draw(99)).detach()
    seen = []

    def predictor(z, t):
        seen.append(z)
        return x

    assert torch.equal(sample_neural(forward, predictor, start, (0.9, 0.6, 0.3), draws), x)
    expected = forward.at(x, 0.3)[0]
    sigma = float(PROCESS.sigma(0.3))
    assert float((seen[-1].mean(0) - expected).detach().abs().max()) < 4 * sigma / math.sqrt(4000)
    assert float(seen[-1].std(0).mean()) == pytest.approx(sigma, rel=0.04)


def test_bad_input():
    forward, x = NeuralForward(PROCESS), torch.zeros(2, 1, dtype=torch.float64)
    with pytest.raises(ArgumentError, match="eta"):
        NeuralForward(PROCESS, eta=1.5)
    with pytest.raises(ArgumentError, match="without noise have no bound"):
        NeuralForward(PROCESS, eta=0.0).step_divergence(x, x, 0.2, 0.4)
    with pytest.raises(ArgumentError, match="falling"):
        neural_bound(forward, lambda z, t: z, x, (0.1, 0.5))
    with pytest.raises(ArgumentError, match="draws"):
        neural_bound(forward, lambda z, t: z, x, (0.5, 0.1), draws=0)
