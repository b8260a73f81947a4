"""A signal that decays like a damped oscillator, against the exponential of its companion matrix."""

from __future__ import annotations

import pytest
import torch

from sfumato.noise import MomentumDecay, damped_decay


@pytest.mark.parametrize("damping", [0.3, 0.9, 1, 1.5, 8.0])
def test_it_solves_its_equation_from_rest(damping):
    """`(s, s')` is the first column of `exp(B [[0, 1], [-1, -2 zeta]])`: oscillating, critical and overdamped."""
    clock = torch.tensor([0.0, 0.1, 1.0, 3.7], dtype=torch.float64)
    companion = torch.tensor([[0.0, 1.0], [-1.0, -2.0 * damping]], dtype=torch.float64)
    expected = torch.linalg.matrix_exp(clock[:, None, None] * companion)[:, :, 0]
    signal, rate = damped_decay(clock, damping)
    torch.testing.assert_close(signal, expected[:, 0], rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(rate, expected[:, 1], rtol=1e-11, atol=1e-13)


def test_without_a_word_the_damping_is_critical():
    clock = torch.tensor([0.5, 2.0], dtype=torch.float64)
    torch.testing.assert_close(damped_decay(clock)[0], torch.exp(-clock) * (1 + clock), rtol=1e-15, atol=0)


def test_the_clock_is_the_integral_of_its_speed():
    """`alpha(t) = s(B(t))` with `B = 3 (0.5 t + 1.5 t^2 / 2)`."""
    t = torch.tensor([0.2, 1.0], dtype=torch.float64)
    process = MomentumDecay(5.0, 3.0, 2.0, 0.5, 2.0)
    torch.testing.assert_close(process.alpha(t), damped_decay(3 * (0.5 * t + 0.75 * t**2), 2.0)[0], rtol=1e-14, atol=0)
    torch.testing.assert_close(process.sigma(t), process.alpha(t) * 5 * t, rtol=1e-14, atol=0)
