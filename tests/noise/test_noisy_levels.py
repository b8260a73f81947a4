"""The chain's marginals and transitions agree, and its misfits are Gaussian negative log-likelihoods."""

from __future__ import annotations

import pytest
import torch

from sfumato.errors import ArgumentError
from sfumato.noise.general.noisy_levels import NoisyLevels

F64 = torch.float64
CHAIN = NoisyLevels.diffusion((3, 0.5, 0, -2))


def test_the_diffusion_chain_is_variance_preserving_at_the_asked_snr():
    for h, a, s in zip((3, 0.5, 0, -2), CHAIN.alphas, CHAIN.sigmas, strict=True):
        assert a**2 + s**2 == pytest.approx(1, abs=1e-14)
        assert torch.tensor(a / s, dtype=F64).log() == pytest.approx(h, abs=1e-13)


def test_misfits_obey_bayes_rule():
    """`log p(y_k | y_j) + log p(y_j | x) - log p(y_k | x)` is a quadratic in `y_j` whose minimum over `y_j` is 0 (a Gaussian posterior)."""
    x, y = torch.tensor([[0.7]], dtype=F64), torch.tensor([[-0.4]], dtype=F64)
    grid = torch.linspace(-4, 4, 200_001, dtype=F64)[:, None]
    joint = CHAIN.step_misfit(grid, y.expand_as(grid), 2) + CHAIN.misfit(x.expand_as(grid), grid, 1)
    assert float(joint.min() - CHAIN.misfit(x, y, 2)) == pytest.approx(0, abs=1e-7)


def test_block_means_forget_what_is_inside_a_block():
    levels = NoisyLevels.alternating((3, 1, -1), (1, 2, 4))
    assert levels.sides == (1, 2, 2, 4, 4)
    assert levels.alphas[0] == levels.alphas[1] != levels.alphas[2] == levels.alphas[3]
    x = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=F64)
    y = levels.apply(x, 3, torch.zeros_like(x))
    torch.testing.assert_close(y, levels.alphas[3] * x.mean((2, 3), keepdim=True).expand_as(x))
    swapped = x.flip(3)
    torch.testing.assert_close(levels.misfit(x, y + 1, 4), levels.misfit(swapped, y + 1, 4))
    with pytest.raises(ArgumentError, match="adds noise"):
        levels.step_misfit(x, y, 3)


def test_chains_that_run_backwards_are_refused():
    for make in (lambda: NoisyLevels.diffusion((0, 1)), lambda: NoisyLevels((1,), (0,)), lambda: NoisyLevels((1, 1), (0, 1), (2, 1))):
        with pytest.raises(ArgumentError):
            make()
    with pytest.raises(ArgumentError, match="level"):
        CHAIN.apply(torch.zeros(1, 2), 4, torch.zeros(1, 2))
