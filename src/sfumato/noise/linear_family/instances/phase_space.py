r"""Position and velocity: noise enters (mostly) through the velocity, and the position is carried along.

Sources: Dockhorn et al. 2022 (arXiv 2112.07068), eqs. 5-7; Pandey & Mandt 2023 (arXiv 2303.01748), eqs. 8-10.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.noise.linear_family.basis import Basis, cosines, laplacian
from sfumato.noise.linear_family.clock import Clock, ClockSDE
from sfumato.noise.linear_family.preset import preset


def _block(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor([rows], dtype=torch.float64)


def _positive(**values: int | float) -> None:
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise ArgumentError(name, value, "a positive number")


def phase_space(drift: Tensor, noise: Tensor, mass: float, beta: float, spread: float, *, basis: Basis | None = None) -> ClockSDE:
    """A member with channels (x, v), of the stationary law `N(0, diag(1, mass))` and `v_0 ~ N(0, spread mass)`.

    Arguments:
        drift, noise: `F_0` and `Q_0`, `(n, 2, 2)`, to be multiplied by `beta`.
    """
    _positive(mass=mass, beta=beta)
    if not 0 <= spread < float("inf"):
        raise ArgumentError("spread", spread, "a variance of at least 0")
    start, stationary = _block((0.0, 0.0), (0.0, spread * mass)), _block((1.0, 0.0), (0.0, mass))
    return ClockSDE(drift, noise, Clock(beta, beta), basis=basis, start=start, prior=(stationary[..., :0], stationary))


@preset
def cld(mass: float = 0.25, friction: float = 1.0, beta: float = 4.0, spread: float = 0.04) -> ClockSDE:
    """Critically damped Langevin: `F = beta [[0, 1/M], [-1, -Gamma/M]]`, `Q = beta diag(0, 2 Gamma)`; critical where `Gamma^2 = 4 M`."""
    _positive(mass=mass, friction=friction)
    drift = _block((0.0, 1 / mass), (-1.0, -friction / mass))
    return phase_space(drift, _block((0.0, 0.0), (0.0, 2 * friction)), mass, beta, spread)


@preset
def blurred_cld(shape: Sequence[int], blur: float = 1.0, mass: float = 0.25, friction: float = 1.0, beta: float = 4.0) -> ClockSDE:
    """`cld` whose position also forgets frequency `k` at the rate `beta lam_k blur^2`, with the noise that keeps its stationary law."""
    _positive(mass=mass, friction=friction, blur=blur)
    basis = cosines(shape)
    forgotten = laplacian(basis)[:, None, None] * blur**2 * _block((1.0, 0.0), (0.0, 0.0))
    drift = _block((0.0, 1 / mass), (-1.0, -friction / mass)) - forgotten
    return phase_space(drift, _block((0.0, 0.0), (0.0, 2 * friction)) + 2 * forgotten, mass, beta, 0.04, basis=basis)


@preset
def psld(position_friction: float = 0.01, friction: float = 4.01, beta: float = 8.0, spread: float = 0.04) -> ClockSDE:
    """Phase-space Langevin: `F = beta/2 [[-Gamma, 1/M], [-1, -nu]]`, `Q = beta diag(Gamma, M nu)`, critical `M = 4 / (Gamma - nu)^2`."""
    gap = (position_friction - friction) ** 2
    _positive(gap_of_frictions=gap, friction=friction)
    mass = 4 / gap
    drift = _block((-position_friction, 1 / mass), (-1.0, -friction)) / 2
    return phase_space(drift, _block((position_friction, 0.0), (0.0, mass * friction)), mass, beta, spread)
