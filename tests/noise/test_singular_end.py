"""Coefficients that diverge at the end: cells that shrink towards it keep the Magnus route's accuracy."""

from __future__ import annotations

import torch

from sfumato.noise import GridSDE, brownian_bridge


def bridge(t):
    """A Brownian motion that is to be at `y` at 1: `F = -1/(1 - t)`, `C = 1/(1 - t)`, `Q = 1`."""
    rate = 1 / (1 - t)[..., None, None, None]
    return -rate, rate, torch.ones_like(rate)


def gap(ours, theirs):
    pairs = ((ours.phi, theirs.phi), (ours.shift, theirs.shift), (ours.covariance, theirs.covariance))
    return max(float((a.coef - b.coef).abs().max()) for a, b in pairs)


def test_shrinking_cells_follow_a_bridge_to_its_end():
    exact = brownian_bridge()
    shrinking, equal = (GridSDE(bridge, conditions=1, cells=64, singular=singular) for singular in (1.0, None))
    for s, t in ((0.0, 0.9), (0.2, 0.999), (0.5, 0.99999)):
        assert gap(shrinking.transition(s, t), exact.transition(s, t)) < 2e-7
    assert gap(equal.transition(0.2, 0.999), exact.transition(0.2, 0.999)) > 1e-4  # equal cells do not


def test_the_last_cells_are_as_much_shorter_as_they_are_nearer():
    """`1 - t` falls from cell to cell by the same factor."""
    edges = GridSDE(bridge, conditions=1, cells=8, singular=1.0)._edges(*torch.tensor([0.2, 0.99], dtype=torch.float64))
    assert float(edges[0]) == 0.2
    torch.testing.assert_close(1 - edges, 0.8 * (0.01 / 0.8) ** (torch.arange(9, dtype=torch.float64) / 8), rtol=1e-12, atol=0)
