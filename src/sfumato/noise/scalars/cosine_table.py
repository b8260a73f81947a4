r"""The cosine schedule as the table of betas that networks are trained on.

`abar_i = f(i/N) / f(0)` with `f(t) = cos^2((pi/2) (t + s)/(1 + s))`, and `beta_i = min(1 - abar_i / abar_{i-1}, largest)`: the bound keeps
some signal at the noisy end, where `Cosine` has none. Source: Nichol & Dhariwal 2021 (arXiv 2102.09672), eq. 17 and section 3.2.
"""

from __future__ import annotations

import torch

from sfumato.errors import ArgumentError
from sfumato.noise.scalars.table import BetaTable
from sfumato.noise.scalars.variance_preserving import Cosine


def cosine_table(n: int = 1000, s: float = 0.008, largest: float = 0.999) -> BetaTable:
    """`n` betas of the cosine schedule.

    Raises:
        ArgumentError: no betas, an offset or a largest beta outside (0, 1).
    """
    if n < 1 or not 0 < largest < 1:
        raise ArgumentError("n, largest", (n, largest), "at least 1 beta, and a largest one in (0, 1)")
    nodes = torch.linspace(0, 1, n + 1, dtype=torch.float64)
    process = Cosine(s)
    return BetaTable(tuple(process.transition(nodes[:-1], nodes[1:]).covariance.clamp(max=largest).tolist()))
