r"""A chain of linear degradations with noise, `y_k = P_k (alpha_k x + sigma_k eps)`, `k = 0 ... K`, from nearly clean to hardly anything.

`P_k` replaces square blocks by their means (nothing if the side is 1). The chain is Markov: with `r = alpha_k / alpha_{k-1}`,

    y_k | y_{k-1} = P_k (r y_{k-1} + sqrt(sigma_k^2 - r^2 sigma_{k-1}^2) eps).

Source: Choi et al. 2023 (arXiv 2303.05456), section 3 and appendix (the chains D and SR).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.noise.general.degradation import Downsample


@dataclass(frozen=True)
class NoisyLevels:
    """The chain of the module's head.

    Arguments:
        alphas, sigmas: one each for `k = 0 ... K`; `alpha > 0`, `sigma / alpha` must not fall.
        sides: of the blocks, must not fall; default: 1 throughout, for events of any shape.
    """

    alphas: tuple[int | float, ...]
    sigmas: tuple[int | float, ...]
    sides: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.alphas)
        if n < 2 or len(self.sigmas) != n or len(self.sides) not in (0, n):
            raise ArgumentError("alphas, sigmas, sides", (n, len(self.sigmas), len(self.sides)), "as many of each, at least 2")
        ratios = [s / a if a > 0 and s >= 0 else math.nan for a, s in zip(self.alphas, self.sigmas, strict=True)]
        if not all(a <= b * (1 + 1e-12) for a, b in itertools.pairwise(ratios)):
            raise ArgumentError("alphas, sigmas", ratios, "noise-to-signal ratios that do not fall")
        if any(a > b for a, b in itertools.pairwise(self.sides)) or any(s < 1 for s in self.sides):
            raise ArgumentError("sides", self.sides, "sides of at least 1 that do not fall")

    @classmethod
    def diffusion(cls, half_log_snr: Sequence[int | float]) -> NoisyLevels:
        """Noise alone, variance preserving, at the given half log-SNRs, which fall."""
        return cls(
            tuple(1 / math.sqrt(1 + math.exp(-2 * v)) for v in half_log_snr),
            tuple(1 / math.sqrt(1 + math.exp(2 * v)) for v in half_log_snr),
        )

    @classmethod
    def alternating(cls, half_log_snr: Sequence[int | float], sides: Sequence[int]) -> NoisyLevels:
        """Noise and block means by turns: `(h_0, s_0), (h_0, s_1), (h_1, s_1), (h_1, s_2), ...`, as long as both lists last."""
        pairs = [(half_log_snr[i // 2], sides[(i + 1) // 2]) for i in range(min(2 * len(half_log_snr), 2 * len(sides) - 1))]
        noise = cls.diffusion([h for h, _ in pairs])
        return cls(noise.alphas, noise.sigmas, tuple(s for _, s in pairs))

    @property
    def levels(self) -> int:
        """`K`."""
        return len(self.alphas) - 1

    def apply(self, x: Float[Tensor, "batch *event"], level: int, eps: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch *event"]:
        """`y_k` of clean `x`, with standard normal `eps`.

        Raises:
            ArgumentError: a level outside `0, ..., levels`.
        """
        self._check(level, 0)
        return self._means(self.alphas[level] * x + self.sigmas[level] * eps, level)

    def misfit(self, x: Float[Tensor, "batch *event"], y: Float[Tensor, "batch *event"], level: int) -> Float[Tensor, "batch"]:
        """`|P_k alpha_k x - y_k|^2 / 2 sigma_k^2`, over whole events (a block counts as its pixels do).

        Raises:
            ArgumentError: a level outside `0, ..., levels`, or without noise.
        """
        self._check(level, 0)
        return self._misfit(x, y, level, self.alphas[level], self.sigmas[level] ** 2)

    def step_misfit(self, before: Float[Tensor, "batch *event"], y: Float[Tensor, "batch *event"], level: int) -> Float[Tensor, "batch"]:
        """The same of `y_k` given `y_{k-1}`.

        Raises:
            ArgumentError: a level outside `1, ..., levels`, or one that adds no noise.
        """
        self._check(level, 1)
        ratio = self.alphas[level] / self.alphas[level - 1]
        return self._misfit(before, y, level, ratio, self.sigmas[level] ** 2 - (ratio * self.sigmas[level - 1]) ** 2)

    def _misfit(self, x: Tensor, y: Tensor, level: int, gain: float, variance: float) -> Tensor:
        if not variance > 1e-12:
            raise ArgumentError("level", level, "a level that adds noise", "Without noise nothing but an exact fit is likely.")
        return (self._means(gain * x, level) - y).square().flatten(1).sum(1) / (2 * variance)

    def _means(self, x: Tensor, level: int) -> Tensor:
        return Downsample((1, self.sides[level]))(x, 1) if self.sides and self.sides[level] > 1 else x

    def _check(self, level: int, least: int) -> None:
        if not least <= level <= self.levels:
            raise ArgumentError("level", level, f"a level from {least} to {self.levels}")
