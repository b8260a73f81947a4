r"""Features of a noisy event and its time: what a linear denoiser is linear in.

A set of features is a map `phi` from `(x, t)`, `x` flat `(n, dim)` and `t` `(n,)`, to `(n, size)`, all float64. The two sets on a grid are
products over the coordinates and time of `per_axis` functions of one variable each, so their size is `per_axis^(dim + 1)`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.seeds import noise

_LARGEST = 20_000


class Features(ABC):
    """`phi(x, t)`; a member is a frozen dataclass.

    `dim` is how many numbers an event has.
    """

    dim: int

    @property
    @abstractmethod
    def size(self) -> int:
        """How many features."""

    @abstractmethod
    def __call__(self, x: Float[Tensor, "n dim"], t: Float[Tensor, " n"]) -> Float[Tensor, "n size"]:
        """The features, float64."""


@dataclass(frozen=True)
class _Product(Features):
    """Products of functions of one variable, over the coordinates in `[-reach, reach]` and time in `[0, 1]`.

    Arguments:
        dim: numbers of an event.
        per_axis: functions of each coordinate, and of time.
        reach: half the range of a coordinate.

    Raises:
        ArgumentError: fewer than 2 functions, no range, or more than 20,000 products.
    """

    dim: int
    per_axis: int
    reach: float = 1.5

    def __post_init__(self) -> None:
        if self.dim < 1 or self.per_axis < 2 or not 0 < self.reach < math.inf:
            given = (self.dim, self.per_axis, self.reach)
            raise ArgumentError("dim, per_axis, reach", given, "at least 1 number, at least 2 functions of each, and a positive range")
        if self.size > _LARGEST:
            expected = f"at most {_LARGEST} products"
            raise ArgumentError(
                "per_axis", f"{self.per_axis} functions of {self.dim + 1} variables", expected, "RandomFourier has no grid."
            )

    @property
    def size(self) -> int:
        return int(self.per_axis ** (self.dim + 1))

    def __call__(self, x: Float[Tensor, "n dim"], t: Float[Tensor, " n"]) -> Float[Tensor, "n size"]:
        x, t = x.to(torch.float64), t.to(torch.float64)
        out = self._one(t, 0.0, 1.0)
        for i in range(self.dim):
            out = (out[:, :, None] * self._one(x[:, i], -self.reach, self.reach)[:, None]).flatten(1)
        return out

    @abstractmethod
    def _one(self, u: Float[Tensor, " n"], low: float, high: float) -> Float[Tensor, "n per_axis"]: ...


@dataclass(frozen=True)
class GaussianBumps(_Product):
    """Normal densities around equally spaced centres from end to end of the range, of half the spacing in standard deviation."""

    def _one(self, u: Float[Tensor, " n"], low: float, high: float) -> Float[Tensor, "n per_axis"]:
        centres = torch.linspace(low, high, self.per_axis, dtype=torch.float64)
        std = float(centres[1] - centres[0]) / 2
        return torch.exp(-0.5 * ((u[:, None] - centres) / std) ** 2) / (std * math.sqrt(2 * math.pi))


@dataclass(frozen=True)
class Fourier(_Product):
    """`1`, `cos(2 pi n u / L)` and `sin(2 pi n u / L)` with the range's length `L`, lowest orders first; `(per_axis - 1) // 2` sines."""

    def _one(self, u: Float[Tensor, " n"], low: float, high: float) -> Float[Tensor, "n per_axis"]:
        sines = (self.per_axis - 1) // 2
        orders = torch.arange(self.per_axis - sines, dtype=torch.float64)
        angle = 2 * math.pi / (high - low) * u[:, None] * orders
        return torch.cat([torch.cos(angle), torch.sin(angle[:, 1 : sines + 1])], 1)


@dataclass(frozen=True)
class RandomFourier(Features):
    """`sqrt(2) cos(w.x / length + v t / length_t + b)`, `w`, `v` standard normal, `b` uniform: `phi.phi'` is `count` Gaussian kernels.

    Source: Rahimi & Recht 2007, Random features for large-scale kernel machines.

    Arguments:
        dim: numbers of an event.
        count: how many.
        length, length_t: of the kernel `exp(-|x - x'|^2 / (2 length^2) - (t - t')^2 / (2 length_t^2))`.
        seed: of the frequencies and phases.
    """

    dim: int
    count: int
    length: float = 0.6
    length_t: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        if self.dim < 1 or self.count < 1 or not (self.length > 0 and self.length_t > 0):
            given = (self.dim, self.count, self.length, self.length_t)
            raise ArgumentError("dim, count, length, length_t", given, "at least 1 number and 1 feature, and positive lengths")

    @property
    def size(self) -> int:
        return self.count

    def __call__(self, x: Float[Tensor, "n dim"], t: Float[Tensor, " n"]) -> Float[Tensor, "n size"]:
        draws = noise(self.seed, self.count, (self.dim + 2,), dtype=torch.float64, device=x.device).draw(0)
        phase = 2 * math.pi * torch.special.ndtr(draws[:, -1])
        angle = x.to(torch.float64) / self.length @ draws[:, :-2].T + t.to(torch.float64)[:, None] / self.length_t * draws[:, -2]
        return math.sqrt(2) * torch.cos(angle + phase)
