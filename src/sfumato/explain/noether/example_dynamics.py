r"""Noisy systems to look at: a decision, memories, and networks of the brain sciences.

Source: Vastola 2024 (arXiv 2504.09761), section 4 and its notebooks.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.explain.noether.dynamics import Dynamics
from sfumato.explain.noether.generators import Generator, affine


def decision(drift: int | float = 0.1, noise: int | float = 1.0) -> Dynamics:
    """Drift-diffusion, one dimension: `f = v`, `D = s^2 / 2`; its momentum `((x_T - x_0)/T - v) / s^2` is conserved."""
    return Dynamics.constant(lambda x, t: torch.full_like(x, float(drift)), 1, noise**2 / 2)


def monostable(dim: int = 2, diffusion: int | float = 0.5) -> Dynamics:
    """`f = -x`: one attractor, all rotations."""
    return Dynamics.constant(lambda x, t: -x, dim, diffusion)


def three_attractors(softness: int | float = 0.15, diffusion: int | float = 0.16) -> Dynamics:
    """Decision memory: two populations that excite themselves and inhibit each other, `f_x = 1.25 + 2 S(x) - 0.9 S(y) - x`.

    `S(x) = sigmoid((x - 1.5) / softness)`. The attractors near (3.25, 0.35) and (0.35, 3.25) are the two choices, that near (2.35, 2.35)
    is none.
    """

    def drift(x: Tensor, t: Tensor) -> Tensor:
        rate = torch.sigmoid((x - 1.5) / softness)
        return 1.25 + 2 * rate - 0.9 * rate.flip(1) - x

    return Dynamics.constant(drift, 2, diffusion)


def ring_attractor(diffusion: int | float = 0.1, growth: int | float = 0.0) -> Dynamics:
    """`f = x (1 - |x|^2)`, `D = diffusion (1 + growth |x|^2)`: rotation is a symmetry of both; with `growth` the noise is not additive."""

    def drift(x: Tensor, t: Tensor) -> Tensor:
        return x * (1 - x.square().sum(1, keepdim=True))

    if growth == 0:
        return Dynamics.constant(drift, 2, diffusion)
    return Dynamics.stated(drift, 2, lambda x, t: diffusion * (1 + growth * x.square().sum(1)))


def line_attractor(dim: int = 2, diffusion: int | float = 0.1) -> Dynamics:
    """All points of the first axis are at rest, all others fall to it: translation along the axis is a symmetry."""
    keep = torch.ones(dim, dtype=torch.float64)
    keep[0] = 0
    return Dynamics.constant(lambda x, t: -x * keep.to(x), dim, diffusion)


def ring_rnn(neurons: int, gain: int | float = 1.3, diffusion: int | float = 0.05, weights: Tensor | None = None) -> Dynamics:
    """`h' = -h + W tanh(h)`, `W_ij = (2 gain / N) cos(theta_i - theta_j)` (or the weights given), neurons at equal angles on a ring.

    Raises:
        ArgumentError: fewer than 3 neurons.
    """
    W = ring_weights(neurons, gain) if weights is None else weights
    return Dynamics.constant(lambda h, t: -h + torch.tanh(h) @ W.to(h).T, neurons, diffusion)


def ring_weights(neurons: int, gain: int | float = 1.3) -> Float[Tensor, "neurons neurons"]:
    """The weights of `ring_rnn`.

    Raises:
        ArgumentError: fewer than 3 neurons.
    """
    theta = _angles(neurons)
    return 2 * gain / neurons * torch.cos(theta[:, None] - theta)


def ring_bump(neurons: int, angle: int | float, gain: int | float = 1.3) -> Float[Tensor, "neurons"]:
    """The resting state of `ring_rnn` with its bump at `angle`: `a cos(theta - angle)` with `a = (2 gain / N) sum cos tanh(a cos)`."""
    wave = torch.cos(_angles(neurons) - angle)
    a = torch.tensor(2.0, dtype=torch.float64)
    for _ in range(500):
        a = 2 * gain / neurons * (wave * torch.tanh(a * wave)).sum()
    return a * wave


def ring_rotation(neurons: int) -> Generator:
    """Moving the pattern around the ring: the derivative by the angle of the trigonometric interpolant through the neurons."""
    theta = _angles(neurons)
    orders = torch.arange(1, (neurons + 1) // 2, dtype=torch.float64)
    matrix = -2 / neurons * (orders * torch.sin(orders * (theta[:, None] - theta)[..., None])).sum(-1)
    return affine("ring rotation", matrix)


def _angles(neurons: int) -> Tensor:
    if neurons < 3:
        raise ArgumentError("neurons", neurons, "at least 3 neurons")
    return 2 * math.pi / neurons * torch.arange(neurons, dtype=torch.float64)


def resting_state(dynamics: Dynamics, near: Float[Tensor, "dim"], time: int | float = 200.0) -> Float[Tensor, "dim"]:
    """Where the drift leads from a state in the long run, without noise (the drift at time 0, 4000 Euler steps)."""
    x, t = near[None], torch.zeros(1, dtype=near.dtype)
    with torch.no_grad():
        for _ in range(4000):
            x = x + time / 4000 * dynamics.f(x, t)
    return x[0]
