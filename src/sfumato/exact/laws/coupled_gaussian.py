r"""Data and noise that know of each other: Gaussian data, a linear encoder, and the straight paths between them, in closed form.

`x ~ N(0, s^2)`, `z | x ~ N(a x, b^2)`, `x_t = (1 - t) x + t z`. Then everything is linear and Gaussian:

    v(x_t) = Cov(z - x, x_t) / Var(x_t) x_t,        V = int Var(z - x | x_t) dt,        KL = (a^2 s^2 + b^2 - 1 - log b^2) / 2,

`V` being the least flow-matching loss, a bound on how much the generative paths bend, and `KL` the encoder's from the prior `N(0, 1)`.
With `a = rho/s` and `b^2 = 1 - rho^2` the aggregate is the prior, `V = s sqrt(1 - rho^2) arccos(rho)` and `KL = -log(1 - rho^2) / 2`.
Source: Lee et al. 2023 (arXiv 2301.12003); the closed forms are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sfumato.errors import ArgumentError

_NODES = 64


@dataclass(frozen=True)
class CoupledGaussian:
    """The world of the module's head.

    Arguments:
        std: `s`, of the data.
        slope, spread: `a` and `b > 0` of the encoder; tensors that require gradients make the costs differentiable.
    """

    std: float
    slope: Tensor
    spread: Tensor

    def __post_init__(self) -> None:
        if not self.std > 0 or not float(self.spread.detach()) > 0:
            raise ArgumentError("std, spread", (self.std, float(self.spread.detach())), "positive standard deviations")

    @classmethod
    def of_correlation(cls, std: float, rho: float) -> CoupledGaussian:
        """The encoder of that correlation whose aggregate is the prior.

        Raises:
            ArgumentError: a correlation outside [0, 1).
        """
        if not 0 <= rho < 1:
            raise ArgumentError("rho", rho, "a correlation in [0, 1)")
        return cls(std, *torch.tensor([rho / std, math.sqrt(1 - rho**2)], dtype=torch.float64))

    @property
    def aggregate_variance(self) -> Tensor:
        """Of `z`; the prior's is 1."""
        return (self.slope * self.std) ** 2 + self.spread**2

    @property
    def divergence(self) -> Tensor:
        """`KL` of the encoder from the prior, averaged over the data, in nats."""
        return 0.5 * (self.aggregate_variance - 1) - torch.log(self.spread)

    @property
    def cost(self) -> Tensor:
        """`V`, by Gauss-Legendre quadrature."""
        nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(_NODES))
        variance, cross, difference = self._moments((nodes + 1) / 2)
        return (weights / 2 * (difference - cross**2 / variance)).sum()

    def velocity_gain(self, t: float) -> float:
        """`v(x) / x` at time `t`."""
        variance, cross, _ = self._moments(torch.tensor(t, dtype=torch.float64))
        return float(cross / variance)

    def euler_variance(self, steps: int) -> float:
        """The variance of samples made of the prior by so many Euler steps of equal length."""
        gain = 1.0
        for i in range(steps, 0, -1):
            gain *= 1 - self.velocity_gain(i / steps) / steps
        return gain**2

    def _moments(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`Var x_t`, `Cov(z - x, x_t)` and `Var(z - x)`."""
        on_data, on_noise = (1 - t) + t * self.slope, t * self.spread
        variance = (on_data * self.std) ** 2 + on_noise**2
        cross = (self.slope - 1) * on_data * self.std**2 + self.spread * on_noise
        return variance, cross, ((self.slope - 1) * self.std) ** 2 + self.spread**2
