"""How much an error counts at each noise level."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.noise import ScalarProcess


class Weight(ABC):
    """A weight over times. A member is a frozen dataclass, so that its `repr` says which weight it is."""

    @abstractmethod
    def __call__(self, process: ScalarProcess, t: Tensor) -> Tensor:
        """The weights at times `t` `(batch,)`, float64, of the squared error of the loss's view."""


@dataclass(frozen=True)
class Uniform(Weight):
    """1; with the view "noise" the simple loss of Ho et al. 2020 (arXiv 2006.11239), eq. 14."""

    def __call__(self, process: ScalarProcess, t: Tensor) -> Tensor:
        return torch.ones_like(t)


@dataclass(frozen=True)
class EDMWeight(Weight):
    """`(k^2 + s^2)/(k s)^2 = 1/s^2 + SNR`, `k = sigma/alpha`: unit weight on the output of a network preconditioned for `s = sigma_data`.

    Source: Karras et al. 2022 (arXiv 2206.00364), table 1, in units of `x/alpha`.
    """

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.sigma_data < math.inf:
            raise ArgumentError("sigma_data", self.sigma_data, "a positive standard deviation")

    def __call__(self, process: ScalarProcess, t: Tensor) -> Tensor:
        return 1 / self.sigma_data**2 + _snr(process, t)


@dataclass(frozen=True)
class SNRWeight(Weight):
    """`SNR = alpha^2/sigma^2`: on an error of the data, the squared error of the noise."""

    def __call__(self, process: ScalarProcess, t: Tensor) -> Tensor:
        return _snr(process, t)


@dataclass(frozen=True)
class MinSNRWeight(Weight):
    """`min(SNR, gamma)`, for errors of the data (Hang et al. 2023, arXiv 2303.09556)."""

    gamma: float = 5.0

    def __post_init__(self) -> None:
        if not 0 < self.gamma < math.inf:
            raise ArgumentError("gamma", self.gamma, "a positive bound")

    def __call__(self, process: ScalarProcess, t: Tensor) -> Tensor:
        return _snr(process, t).clamp(max=self.gamma)


def _snr(process: ScalarProcess, t: Tensor) -> Tensor:
    return torch.exp(2 * process.half_log_snr(t))
