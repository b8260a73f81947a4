"""The bound along the path, node by node, against the sum written out for one channel."""

from __future__ import annotations

import math

import torch

from sfumato.noise import VariancePreserving, cld, linear
from sfumato.noise.linear_family.path_bound import path_bound
from sfumato.seeds import noise

X0 = torch.tensor([[0.5, -1.0, 2.0], [1.5, 0.3, -0.2]], dtype=torch.float64)
DRAWS = noise(5, 2, (3,), dtype=torch.float64)


def test_three_nodes_of_a_scalar_process_by_hand():
    """`log p_1(x_1) + int t (Q <s, t* - s/2> + d F) d log t`, trapezoidal, with `t* = -eps / sigma` the score of the transition."""
    process = VariancePreserving(0.5, 3.0)
    total = torch.zeros(2, dtype=torch.float64)
    spacing = math.log(100) / 2
    for j, (t, end) in enumerate([(0.01, 0.5), (0.1, 1.0), (1.0, 0.5)]):
        alpha, sigma, beta = float(process.alpha(t)), float(process.sigma(t)), 0.5 + 2.5 * t
        x = alpha * X0 + sigma * DRAWS.draw(j)
        target, guess = -DRAWS.draw(j) / sigma, torch.sin(x) * t
        total += end * spacing * t * ((beta * guess * (target - guess / 2)).sum(1) - 3 * beta / 2)
    last = float(process.alpha(1.0)) * X0 + float(process.sigma(1.0)) * DRAWS.draw(3)
    variance = float(process.sigma(1.0)) ** 2
    total += -(last**2).sum(1) / 2 / variance - 1.5 * math.log(2 * math.pi * variance)
    found = path_bound(linear(process), lambda x, t: torch.sin(x) * t, X0, DRAWS, nodes=3, first=0.01)
    torch.testing.assert_close(found, total, rtol=1e-10, atol=1e-10)


def test_a_spread_of_the_velocity_enters_by_its_entropy():
    """Two starts that differ in the velocity's spread alone, `N(0, spread mass)`: without a score only prior, drift and entropy remain."""
    draws = noise(5, 2, (2, 3), dtype=torch.float64)

    def rest(spread):
        process = cld(spread=spread)
        x = process.sample(X0, 1.0, draws.draw(2))
        drift = process.coefs(1.0).phi.coef.squeeze()
        decay = 3 * float(drift[0, 0] + drift[1, 1]) * 0.5 * math.log(10) * (1.0 + 0.1)
        return path_bound(process, lambda x, t: torch.zeros_like(x), X0, draws, nodes=2, first=0.1) - process.prior().log_prob(x) - decay

    for spread in (0.04, 0.3):
        entropy = 1.5 * (math.log(spread * 0.25) + math.log(2 * math.pi * math.e))
        torch.testing.assert_close(rest(spread), torch.full((2,), entropy, dtype=torch.float64), rtol=1e-10, atol=1e-10)


def test_by_default_there_are_64_nodes_from_a_ten_thousandth():
    process = linear(VariancePreserving())
    score = lambda x, t: -x  # noqa: E731
    torch.testing.assert_close(
        path_bound(process, score, X0, DRAWS), path_bound(process, score, X0, DRAWS, nodes=64, first=1e-4), rtol=0, atol=0
    )
