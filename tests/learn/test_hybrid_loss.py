"""Learned variances: where their gradient goes, where their optimum is, and steps drawn by their losses."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.denoise import ResidualMLP, TwoHeaded
from sfumato.errors import ArgumentError, ShapeError
from sfumato.learn.losses.hybrid_loss import HybridLoss, LossAwareSteps, chain_bound, fit_shares, step_bound
from sfumato.learn.losses.variational_bound import discrete_bound
from sfumato.noise import BetaTable, VariancePreserving
from sfumato.sample.steps.reverse_chain import ReverseChain

CHAIN = ReverseChain.respaced(BetaTable.linear(200, 5e-4, 0.1), 12)


def test_the_mean_of_step_bounds_is_the_bound(g4):
    """`K` times the mean over uniform steps, in bits, is `discrete_bound`'s diffusion and reconstruction: 4 standard errors."""
    belief, x = g4.denoiser(CHAIN.process), g4.sample(6000, 0)
    share = torch.linspace(0.9, 0.4, 12, dtype=torch.float64)
    step = torch.arange(6000) % 12
    t = torch.tensor(CHAIN.times, dtype=torch.float64)[step]
    noisy = CHAIN.process.sample(x, t, torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    own = 12 * step_bound(CHAIN, x, belief.denoise(noisy, t), share[step][:, None].expand(-1, 2), step)
    whole = discrete_bound(belief, x, CHAIN, share)
    expected = float((whole.diffusion + whole.reconstruction).mean()) / math.log(4)
    assert float(own.mean()) == pytest.approx(expected, abs=4 * float(own.std()) / math.sqrt(6000))


def test_the_bound_teaches_the_variance_and_leaves_the_mean_alone(g4):
    clean = g4.sample(24, 0)
    step = torch.arange(24) % 12
    said = (clean + 0.3).requires_grad_()
    share = torch.full_like(clean, 0.5, requires_grad=True)
    HybridLoss(CHAIN, 0.5)(clean, said, share, step).sum().backward()
    t = torch.tensor(CHAIN.times, dtype=torch.float64)[step]
    simple = torch.exp(2 * CHAIN.process.half_log_snr(t))[:, None] * 0.3  # d/dD of the mean over two numbers
    torch.testing.assert_close(said.grad, simple.expand(-1, 2))
    mine = torch.full_like(clean, 0.5, requires_grad=True)
    (0.5 * 12 * step_bound(CHAIN, clean, said.detach(), mine, step)).sum().backward()
    torch.testing.assert_close(share.grad, mine.grad)


def test_learned_shares_are_the_best_ones():
    alpha, sigma = CHAIN.process.levels(torch.tensor(CHAIN.times[:-1], dtype=torch.float64))
    error = 0.5 * sigma**2 / (0.5 * alpha**2 + sigma**2)
    found = fit_shares(CHAIN, error)
    torch.testing.assert_close(CHAIN.log_variance(found), CHAIN.best_log_variance(error), rtol=0, atol=0.02)
    best = (CHAIN.best_log_variance(error) - CHAIN.log_betatilde) / (CHAIN.log_beta - CHAIN.log_betatilde)
    assert float(chain_bound(CHAIN, error, found) - chain_bound(CHAIN, error, best)) < 1e-3
    assert float(chain_bound(CHAIN, error, torch.ones(12, dtype=torch.float64)) - chain_bound(CHAIN, error, best)) > 0.01


def test_loss_aware_steps_are_unbiased_and_of_least_variance():
    """With losses that are constants of the step, the weighted loss is the same whatever the step. Uniform until all are known."""
    sampler, generator = LossAwareSteps(5, history=2, floor=0.0), torch.Generator().manual_seed(0)
    losses = torch.tensor([1.0, 2.0, 4.0, 8.0, 0.5])
    sampler.update(torch.arange(5), losses)
    torch.testing.assert_close(sampler.probabilities, torch.full((5,), 0.2, dtype=torch.float64))
    sampler.update(torch.arange(5), 100 * losses)
    sampler.update(torch.arange(5), losses)  # the oldest is forgotten
    sampler.update(torch.arange(5), losses)
    step, weight = sampler.draw(50, generator)
    torch.testing.assert_close(weight * losses[step], torch.full((50,), float(losses.mean()), dtype=torch.float64))


class _Half(torch.nn.Module):
    def forward(self, x, c_noise, condition):
        return x[:, :2]


def test_two_heads_from_any_network():
    """A network that says zero: the best linear denoiser of its scale, and a variance half-way."""
    process = VariancePreserving()
    model = TwoHeaded(ResidualMLP((4, 3), 8, 1), process, 0.7)
    x, t = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0)), torch.full((5,), 0.4)
    said, share = model(x, t)
    alpha, sigma = process.levels(0.4)
    torch.testing.assert_close(said, x * float(alpha * 0.49 / (alpha**2 * 0.49 + sigma**2)))
    torch.testing.assert_close(share, torch.full_like(x, 0.5))
    assert torch.equal(model.denoise(x, t), said)
    with pytest.raises(ShapeError, match="twice the channels"):
        TwoHeaded(_Half(), process)(x, t)


def test_bad_input():
    with pytest.raises(ArgumentError, match="weight"):
        HybridLoss(CHAIN, 0.0)
    with pytest.raises(ArgumentError, match="history"):
        LossAwareSteps(5, history=0)
    with pytest.raises(ShapeError, match="one a step"):
        LossAwareSteps(5).update(torch.arange(5), torch.ones(4))
