r"""Bridges between two known ends, and paths steered to data by an acceleration.

Source of the steered paths: Chen et al. 2024 (ICLR; phase-space stochastic bridges), eqs. 9-14.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.noise.linear_family.backwards import Backwards
from sfumato.noise.linear_family.clock import Clock, ClockSDE
from sfumato.noise.linear_family.linear_sde import LinearSDE
from sfumato.noise.linear_family.pinned import Pinned
from sfumato.noise.linear_family.preset import preset
from sfumato.noise.linear_family.van_loan import Coefs


@preset
def brownian_bridge(level: float = 1.0) -> Pinned:
    """From the data to the condition: mean `(1 - t) x_0 + t y`, variance `level^2 t (1 - t)`."""
    block = torch.full((1, 1, 1), float(level) ** 2, dtype=torch.float64)
    return Pinned(ClockSDE(0 * block, block, Clock(1.0, 1.0)))


@preset
def vp_bridge(first: float = 0.1, last: float = 2.0) -> Pinned:
    """From the data to the condition, along a variance-preserving process."""
    block = torch.ones(1, 1, 1, dtype=torch.float64)
    return Pinned(ClockSDE(-block / 2, block, Clock(first, last)))


class Steered(LinearSDE):
    r"""Position and velocity under the acceleration `4 (y - x)/T^2 - 4 v/T`, `T = 1 - t`, and noise `p T` on the velocity, from noise to
    the data `y`.

    `x - y` is a combination of `T` and `T^4`, so with `W = [[T, T^4], [-1, -4 T^3]]`: `Phi = W_t W_s^{-1}`, and the covariance is a
    polynomial in `T` and `log T`. Time runs from noise at 0 to data at 1.

    Arguments:
        power: `p`.
        correlation: `k`, the start is `N(0, [[1, -k], [-k, 1]])`.
    """

    def __init__(self, power: float = 3.0, correlation: float = 0.2) -> None:
        if not (0 < power < float("inf") and -1 < correlation < 1):
            raise ArgumentError("power, correlation", (power, correlation), "a positive power, a correlation in (-1, 1)")
        start = torch.tensor([[[1.0, -correlation], [-correlation, 1.0]]], dtype=torch.float64)
        super().__init__(2, 1, start=start)
        self.power = power

    def _coefs(self, t: Tensor) -> Coefs:
        left = 1 - t
        zero, one = torch.zeros_like(t), torch.ones_like(t)
        pull = 4 / left**2
        return (
            _rows((zero, one), (-pull, -4 / left)),
            _rows((zero,), (pull,)),
            _rows((zero, zero), (zero, (self.power * left) ** 2)),
        )

    def _transition(self, s: Tensor, t: Tensor) -> Coefs:
        b, e = 1 - s, 1 - t
        r = e / b
        phi = _rows(((4 * r - r**4) / 3, e * (1 - r**3) / 3), (-4 * (1 - r**3) / (3 * b), (4 * r**3 - 1) / 3))
        gain = torch.cat([1 - phi[..., :1, :1], -phi[..., 1:, :1]], -2)
        cubes, log, rest = (b**3 - e**3) / 3, torch.xlogy(e**3, r), (1 - r**3) / 3
        xx = e**2 * cubes + 2 * e**2 * log + e**5 * rest
        xv = -e * cubes - 5 * e * log - 4 * e**4 * rest
        vv = cubes + 8 * log + 16 * e**3 * rest
        return phi, gain, _rows((xx, xv), (xv, vv)) * self.power**2 / 9


def _rows(*rows: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([torch.stack(row, -1) for row in rows], -2)[..., None, :, :]


@preset
def agm(power: float = 3.0, correlation: float = 0.2) -> Backwards:
    """The acceleration-steered bridge, `Steered`, in the library's time: data at 0, `N(0, [[1, -k], [-k, 1]])` at 1."""
    return Backwards(Steered(power, correlation))
