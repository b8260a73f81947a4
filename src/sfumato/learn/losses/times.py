"""Which noise levels a loss looks at: laws of the time `t`, drawn through their quantile functions."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.noise import ScalarProcess


@dataclass(frozen=True)
class Times(ABC):
    """A law of times. A member is a frozen dataclass, so that its `repr` says which law it is.

    Arguments:
        stratified: one draw from each of `batch` equally likely slices, in place of independent draws: the same law for every draw, less
            variance in the batch's mean (Kingma et al. 2021, arXiv 2107.00630, appendix I.1).
    """

    stratified: bool = field(default=True, kw_only=True)

    @abstractmethod
    def quantile(self, process: ScalarProcess, u: Tensor) -> Tensor:
        """The time of probability `u` in (0, 1], counted from either end: a monotone map of uniform `u` to the law. float64, as `u`."""

    def draw(self, process: ScalarProcess, batch: int, generator: torch.Generator, groups: int = 1) -> Tensor:
        """`groups` batches of times, float64 `(groups, batch)`, each stratified by itself."""
        u = 1 - torch.rand(groups, batch, generator=generator, dtype=torch.float64)
        if self.stratified:
            u = (torch.arange(batch) + u) / batch
        return self.quantile(process, u)


@dataclass(frozen=True)
class LogNormalRatio(Times):
    """`log(sigma/alpha) ~ N(mean, std^2)`, given that the process has that ratio (Karras et al. 2022, arXiv 2206.00364, table 1).

    Arguments:
        mean, std: of the logarithm.
    """

    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and 0 < self.std < math.inf):
            raise ArgumentError("mean, std", (self.mean, self.std), "a finite mean and a positive standard deviation")

    def quantile(self, process: ScalarProcess, u: Tensor) -> Tensor:
        top = -process.half_log_snr(1.0)
        share = torch.special.ndtr((top - self.mean) / self.std)
        log_ratio = self.mean + self.std * torch.special.ndtri(u * share)
        return process.time(-torch.minimum(log_ratio, top)).clamp(0.0, 1.0)


@dataclass(frozen=True)
class UniformTime(Times):
    """`t` uniform in (0, 1]."""

    def quantile(self, process: ScalarProcess, u: Tensor) -> Tensor:
        return u


@dataclass(frozen=True)
class UniformLogSNR(Times):
    """`log(alpha/sigma)` uniform between two bounds.

    Arguments:
        low, high: the bounds of half the log-SNR.
    """

    low: float = -5.0
    high: float = 5.0

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf:
            raise ArgumentError("low, high", (self.low, self.high), "low < high, both finite")

    def quantile(self, process: ScalarProcess, u: Tensor) -> Tensor:
        least = float(process.half_log_snr(1.0))
        if self.low < least - 1e-9:
            raise ArgumentError("low", self.low, f"at least {least:.6g}, where {process.kind} ends")
        return process.time(self.high - (self.high - self.low) * u).clamp(0.0, 1.0)
