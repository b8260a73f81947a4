r"""Degradations without noise: families `D(x, s)` of transforms at levels `s = 0 ... S` with `D(x, 0) = x`, which forget more and more.

| class | `D(x, s)` |
|---|---|
| `Blur` | the heat equation run for `times[s]`: cosine mode `(i, j)` times `exp(-times[s] pi^2 (i^2/h^2 + j^2/w^2))` |
| `GaussianMask` | `m_s x + (1 - m_s) fill`, a Gaussian hole about the centre that grows, or a Gaussian of sight that shrinks |
| `Downsample` | block means, each repeated over its block |
| `PatchReplacement` | the first `s` square patches, in a random order that a seed fixes, taken from another image |
| `Blend` | `weights[s] x + other_weights[s] other`: towards a fixed image, or, with normal noise for one, the noising of diffusion |
| `Snow` | `(1 - weights[s]) x + weights[s] max(x, flakes)` |

Events are images `(channels, height, width)`, except for `Blend`, which takes any.

Source: Bansal et al. 2022 (arXiv 2208.09392), section 5.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from sfumato.errors import ArgumentError, ShapeError
from sfumato.noise.linear_family.basis import cosine_matrix
from sfumato.seeds import Seed, noise


@runtime_checkable
class Degradation(Protocol):
    """`D(x, s)` with `D(x, 0) = x`, the same function of `x` and `s` at every call."""

    @property
    def levels(self) -> int:
        """`S`, the hardest level."""

    def __call__(self, x: Float[Tensor, "batch *event"], level: int) -> Float[Tensor, "batch *event"]:
        """`D(x, level)`."""


def check_level(degradation: Degradation, level: int, least: int = 0) -> None:
    """Refuse a level that the degradation does not have.

    Raises:
        ArgumentError: a level outside `least, ..., levels`.
    """
    if not least <= level <= degradation.levels:
        raise ArgumentError("level", level, f"a level from {least} to {degradation.levels}")


def _rising(name: str, values: Sequence[int | float], start: int) -> None:
    if len(values) < 2 or values[0] != start or any(not b >= a for a, b in itertools.pairwise(values)):
        raise ArgumentError(name, tuple(values), f"at least two numbers that rise from {start}")


def _image(x: Tensor) -> None:
    if x.ndim != 4:
        raise ShapeError("x", tuple(x.shape), "images (batch, channels, height, width)")


@functools.lru_cache(maxsize=256)
def _heat(n: int, time: float) -> Tensor:
    """The heat kernel on `n` pixels with insulated ends, `C^T exp(-time (pi k/n)^2) C`, float64."""
    cosines = cosine_matrix(n)
    decay = torch.exp(-time * (math.pi * torch.arange(n, dtype=torch.float64) / n) ** 2)
    return cosines.T @ (decay[:, None] * cosines)


@dataclass(frozen=True)
class Blur:
    """Diffusion over the pixels, see the module's table.

    Arguments:
        times: rising from 0, in units of one pixel squared; `sqrt(2 time)` is the standard deviation of the blur.
    """

    times: tuple[int | float, ...]

    def __post_init__(self) -> None:
        _rising("times", self.times, 0)

    @property
    def levels(self) -> int:
        return len(self.times) - 1

    def __call__(self, x: Float[Tensor, "batch *event"], level: int) -> Float[Tensor, "batch *event"]:
        check_level(self, level)
        _image(x)
        rows, columns = (_heat(n, float(self.times[level])).to(x) for n in x.shape[2:])
        return x if level == 0 else rows @ x @ columns.T


Grows = Literal["centre", "border"]
"""Where a mask begins to forget."""


@dataclass(frozen=True)
class GaussianMask:
    """`m = 1 - exp(-r^2 / 2 w^2)` with `w` rising from 0: a hole; or `m = exp(-r^2 / 2 w^2)` with `1/w` rising: from the border.

    Arguments:
        widths: `w` in pixels, or `1/w` from the border; rising from 0, may end in infinity, where nothing is left.
        grows: "centre" or "border".
        fill: what stands where nothing is seen.
    """

    widths: tuple[int | float, ...]
    grows: Grows = "centre"
    fill: int | float = 0

    def __post_init__(self) -> None:
        _rising("widths", self.widths, 0)
        if self.grows not in get_args(Grows):
            raise ArgumentError("grows", repr(self.grows), f"one of {', '.join(get_args(Grows))}")

    @property
    def levels(self) -> int:
        return len(self.widths) - 1

    def __call__(self, x: Float[Tensor, "batch *event"], level: int) -> Float[Tensor, "batch *event"]:
        check_level(self, level)
        _image(x)
        width = self.widths[level]
        if level == 0 or width == 0:
            return x
        if width == math.inf:
            return torch.full_like(x, self.fill)
        y, z = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2 for n in x.shape[2:])
        squared = y[:, None] ** 2 + z**2
        kept = -torch.expm1(-squared / (2 * width**2)) if self.grows == "centre" else torch.exp(-squared * width**2 / 2)
        return self.fill + kept.to(x) * (x - self.fill)


@dataclass(frozen=True)
class Downsample:
    """Block means.

    Arguments:
        sides: of the square blocks, rising from 1, each a divisor of the image's sides.
    """

    sides: tuple[int, ...]

    def __post_init__(self) -> None:
        _rising("sides", self.sides, 1)

    @property
    def levels(self) -> int:
        return len(self.sides) - 1

    def __call__(self, x: Float[Tensor, "batch *event"], level: int) -> Float[Tensor, "batch *event"]:
        check_level(self, level)
        _image(x)
        side = self.sides[level]
        if any(n % side for n in x.shape[2:]):
            raise ShapeError("x", tuple(x.shape), f"images whose sides are multiples of {side}")
        return x if side == 1 else interpolate(avg_pool2d(x, side), scale_factor=float(side), mode="nearest")


@dataclass(frozen=True, eq=False)
class PatchReplacement:
    """Patches of another image, one more a level.

    Arguments:
        other: `(channels, height, width)`.
        side: of a patch, a divisor of both sides.
        seed: of the order in which they come.
    """

    other: Float[Tensor, "channels height width"]
    side: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.other.ndim != 3 or self.side < 1 or any(n % self.side for n in self.other.shape[1:]):
            raise ArgumentError(
                "other, side", (tuple(self.other.shape), self.side), "an image (channels, height, width) cut into whole patches"
            )

    @property
    def levels(self) -> int:
        return (self.other.shape[1] // self.side) * (self.other.shape[2] // self.side)

    def __call__(self, x: Float[Tensor, "batch *event"], level: int) -> Float[Tensor, "batch *event"]:
        check_level(self, level)
        if x.shape[1:] != self.other.shape:
            raise ShapeError("x", tuple(x.shape), f"images of the other's shape {tuple(self.other.shape)}")
        rank = torch.randperm(self.levels, generator=torch.Generator().manual_seed(self.seed)).argsort()
        taken = (rank < level).reshape(x.shape[2] // self.side, -1)
        taken = taken.repeat_interleave(self.side, 0).repeat_interleave(self.side, 1).to(x.device)
        return torch.where(taken, self.other.to(x), x)


@dataclass(frozen=True, eq=False)
class Blend:
    """`weights[s] x + other_weights[s] other`; with `sqrt(abar)`, `sqrt(1 - abar)` and normal noise it is noising with noise held fixed.

    Arguments:
        other: what the data turn into: one event, or one per sample.
        weights, other_weights: a pair for each level, the first `(1, 0)`.
    """

    other: Float[Tensor, "*event"]
    weights: tuple[int | float, ...]
    other_weights: tuple[int | float, ...]

    def __post_init__(self) -> None:
        if len(self.weights) != len(self.other_weights) or len(self.weights) < 2 or (self.weights[0], self.other_weights[0]) != (1, 0):
            raise ArgumentError("weights, other_weights", (self.weights, self.other_weights), "as many of each, at least 2, first 1 and 0")

    @property
    def levels(self) -> int:
        return len(self.weights) - 1

    def __call__(self, x: Float[Tensor, "batch *event"], level: int) -> Float[Tensor, "batch *event"]:
        check_level(self, level)
        return self.weights[level] * x + self.other_weights[level] * self.other.to(x)

    def seen(self, x: Float[Tensor, "batch *event"], clean: Float[Tensor, "batch *event"], level: int) -> Blend:
        """The blend that makes `x` of `clean`: `other = (x - weights[s] clean) / other_weights[s]`, one per sample.

        Raises:
            ArgumentError: a level at which the other image has no weight.
        """
        check_level(self, level)
        if self.other_weights[level] == 0:
            raise ArgumentError("level", level, "a level at which the other image is seen")
        return Blend((x - self.weights[level] * clean) / self.other_weights[level], self.weights, self.other_weights)


@dataclass(frozen=True, eq=False)
class Snow:
    """A layer of flakes that brightens what is darker than it.

    Arguments:
        flakes: `(height, width)`, as bright as the data are at most; see `snowflakes`.
        weights: rising from 0 to at most 1.
    """

    flakes: Float[Tensor, "height width"]
    weights: tuple[int | float, ...]

    def __post_init__(self) -> None:
        _rising("weights", self.weights, 0)
        if self.weights[-1] > 1:
            raise ArgumentError("weights", self.weights[-1], "weights of at most 1")

    @property
    def levels(self) -> int:
        return len(self.weights) - 1

    def __call__(self, x: Float[Tensor, "batch *event"], level: int) -> Float[Tensor, "batch *event"]:
        check_level(self, level)
        return x + self.weights[level] * (self.flakes.to(x) - x).clamp(min=0)


def snowflakes(
    height: int, width: int, seed: Seed, *, density: int | float = 0.1, streak: int = 2, low: int | float = -1, high: int | float = 1
) -> Float[Tensor, "height width"]:
    """A layer for `Snow`: a share `density` of the pixels begins a streak down and right, fading from `high` to `low`; float64."""
    if not 0 < density < 1 or streak < 1:
        raise ArgumentError("density, streak", (density, streak), "a share in (0, 1) and at least one pixel")
    starts = torch.special.ndtr(noise(seed, 1, (height, width), dtype=torch.float64).draw(0)[0]) < density
    layer = torch.zeros(height, width, dtype=torch.float64)
    for i in range(streak):
        fallen = torch.roll(starts, (i, i), (0, 1))
        layer = torch.maximum(layer, (1 - i / streak) * fallen.to(torch.float64))
    return low + (high - low) * layer
