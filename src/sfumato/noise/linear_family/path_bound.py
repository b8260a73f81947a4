r"""A lower bound of the log-likelihood from the whole noising path, for any member of the linear SDE family.

With `t_u = grad log q(x_u | x_0)`, `|a|_Q^2 = a^T Q a` and a model score `s` of the joint state (data and auxiliary channels):

    log p(x_0) >= E log prior(x_1) + int_0^1 E[ -|s - t_u|_Q^2 / 2 + |t_u|_Q^2 / 2 + tr F ] du - E log q(v_0 | x_0),

with equality, up to `KL(q_1 || prior)` and what the auxiliary channels hide, for the exact score. Most of the integral lies near `u = 0`,
where times are log-spaced. Source: Singhal et al. 2023 (arXiv 2302.07261), theorem 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.noise.linear_family.linear_law import coordinates_of
from sfumato.noise.linear_family.linear_sde import LinearSDE
from sfumato.seeds import Noise


def path_bound(
    process: LinearSDE,
    score: Callable[[Tensor, float], Tensor],
    x0: Float[Tensor, " batch *event"],
    noise: Noise,
    *,
    nodes: int = 64,
    first: float = 1e-4,
    condition: Tensor | None = None,
) -> Float[Tensor, " batch"]:
    """An unbiased estimate of the bound (up to the time quadrature) for each sample, in nats.

    Arguments:
        score: `(x, t) -> score` of the model, for states.
        x0: the data.
        noise: draws of the state's shape, one per sample; draw `j` is used at node `j`.
        nodes: how many log-spaced times in `[first, 1]`, at which the trapezoidal rule is applied.
        first: the earliest time; the path before it is left out.

    Raises:
        ArgumentError: fewer than 2 nodes, a first time outside (0, 1), or auxiliary channels without noise at the start.
    """
    if nodes < 2 or not 0 < first < 1:
        raise ArgumentError("nodes, first", (nodes, first), "at least 2 nodes, a first time in (0, 1)")
    times = torch.logspace(math.log10(first), 0, nodes, dtype=torch.float64).tolist()
    spacing = math.log(1 / first) / (nodes - 1)
    total = process.prior().log_prob(process.sample(x0, 1.0, noise.draw(nodes), condition), condition) + _start_entropy(process, x0)
    for j, t in enumerate(times):
        end = 0.5 if j in (0, nodes - 1) else 1.0
        total = total + end * spacing * t * _integrand(process, score, x0, noise.draw(j), t, condition)
    return total


def _integrand(
    process: LinearSDE, score: Callable[[Tensor, float], Tensor], x0: Tensor, draw: Tensor, t: float, condition: Tensor | None
) -> Tensor:
    law, rates = process.marginal(t), process.coefs(t)
    root = law.covariance.cholesky()
    x = law.mean(x0, condition) + root.apply(draw)
    target, guess = -root.inverse().T.apply(draw), score(x, t)
    # -|s - t|^2 / 2 + |t|^2 / 2 without the two large squares
    pulled = rates.covariance.apply(guess) * (target - guess / 2)
    return pulled.flatten(1).sum(1) + rates.phi.trace(coordinates_of(x, law.covariance))


def _start_entropy(process: LinearSDE, x0: Tensor) -> float:
    """Minus `E log q(v_0 | x_0)`: the entropy of the auxiliary channels, independent of the data."""
    if process.channels == 1:
        return 0.0
    hidden = process.start.shape[-1] // process.channels
    block = process.start[..., hidden:, hidden:]
    values = torch.linalg.eigvalsh(block)
    if not float(values.min()) > 0:
        raise ArgumentError("process", "auxiliary channels without noise at the start", "a start with a density", "Give them a spread.")
    copies = math.prod(x0.shape[1:]) // (block.shape[0] * hidden)
    return 0.5 * copies * float((torch.log(values) + math.log(2 * math.pi * math.e)).sum())
