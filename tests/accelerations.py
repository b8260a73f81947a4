"""A process of positions and velocities, states under it, and the exact belief of a Gaussian: for the solvers and for their uses."""

from __future__ import annotations

import torch

from sfumato.noise import agm


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


PROCESS = agm()


def states(n, t, seed=0, event=(1,)):
    generator = torch.Generator().manual_seed(seed)
    return PROCESS.sample(
        torch.ones(n, *event, dtype=torch.float64), t, torch.randn(n, 2, *event, dtype=torch.float64, generator=generator)
    )


def belief(x, t):
    """`E[x_0 | x]` for `N(0.5, 0.3)`."""
    law = PROCESS.marginal(t)
    gain = (0.3 * law.phi.T) @ (0.3 * (law.phi @ law.phi.T) + law.covariance).inverse()
    half = torch.full((len(x), 1), 0.5, dtype=torch.float64)
    return half + gain.apply(x - law.mean(half))
