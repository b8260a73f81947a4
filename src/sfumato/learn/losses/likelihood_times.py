r"""Laws of noise levels with a density, for estimates of integrals over `lambda = log(alpha/sigma)` by importance sampling.

With `eps - eps_hat = alpha (x_0 - D)/sigma`, the continuous-time bound integrates `|eps - eps_hat|^2 d lambda`. The error of a unit of data
is about `alpha^2` of what it is at no noise, so under `p(lambda) ~ alpha^2` the weighted error hardly depends on the noise level; in the
velocity view of a variance-preserving process (`eps - eps_hat = alpha (F - F_hat)`) the weight is one constant, `int alpha^2 d lambda`. For
processes with `alpha^2 + sigma^2 = 1` the density is `sigmoid(2 lambda)`, for `alpha + sigma = 1` it is `sigmoid(lambda)^2`.
Source: Zheng et al. 2023 (arXiv 2305.03935), section 3.2 and appendix D. Densities are constant on small cells, so that draws and densities
agree exactly whatever was tabulated.
"""

from __future__ import annotations

import functools
import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.learn.losses.times import Times
from sfumato.learn.losses.weights import Weight
from sfumato.noise import ScalarProcess

_CELLS = 4096


@dataclass(frozen=True, eq=False)
class Cells:
    """A piecewise constant density over half the log-SNR, between `low` and `high`; masses sum to 1."""

    low: float
    high: float
    masses: Float[Tensor, " cells"]

    def __post_init__(self) -> None:
        _check(self.low, self.high)
        masses = self.masses.to(torch.float64)
        if masses.ndim != 1 or not bool((torch.isfinite(masses) & (masses > 0)).all()):
            raise ArgumentError("masses", tuple(masses.shape), "positive numbers, one a cell", "A cell without mass is never looked at.")
        object.__setattr__(self, "masses", masses / masses.sum())

    def quantile(self, u: Tensor) -> Tensor:
        """Half the log-SNR of probability `u`, counted from `high`, i.e. from clean."""
        edges = torch.cat([self.masses.new_zeros(1), torch.cumsum(self.masses.flip(0), 0)])
        cell = (torch.searchsorted(edges, u.clamp(max=1.0)) - 1).clamp(0, len(self.masses) - 1)
        part = (u - edges[cell]) / self.masses.flip(0)[cell]
        return self.high - (self.high - self.low) * (cell + part.clamp(0, 1)) / len(self.masses)

    def density(self, half_log_snr: Tensor) -> Tensor:
        """The density at half the log-SNR."""
        place = (half_log_snr - self.low) / (self.high - self.low) * len(self.masses)
        return self.masses[place.long().clamp(0, len(self.masses) - 1)] * len(self.masses) / (self.high - self.low)


@dataclass(frozen=True)
class DensityTimes(Times):
    """Times whose half log-SNR has a known density between two bounds.

    Arguments:
        low, high: the bounds of half the log-SNR.
    """

    low: float = -5.0
    high: float = 6.65

    def __post_init__(self) -> None:
        _check(self.low, self.high)

    @abstractmethod
    def cells(self, process: ScalarProcess) -> Cells:
        """The density under a process."""

    def quantile(self, process: ScalarProcess, u: Tensor) -> Tensor:
        least = float(process.half_log_snr(1.0))
        if self.low < least - 1e-9:
            raise ArgumentError("low", self.low, f"at least {least:.6g}, where {process.kind} ends")
        return process.time(self.cells(process).quantile(u)).clamp(0.0, 1.0)


@dataclass(frozen=True)
class EvenTimes(DensityTimes):
    """`lambda` uniform: what importance sampling is compared with."""

    def cells(self, process: ScalarProcess) -> Cells:
        return Cells(self.low, self.high, torch.ones(1, dtype=torch.float64))


@dataclass(frozen=True)
class LikelihoodTimes(DensityTimes):
    """`p(lambda) ~ alpha^2`, see the module."""

    def cells(self, process: ScalarProcess) -> Cells:
        return _alpha_squared(process, self.low, self.high)


@dataclass(frozen=True)
class AdaptiveTimes(DensityTimes):
    """`p(lambda) ~ sqrt(E loss^2)`, from losses that were measured: of all densities the one of least variance.

    Arguments:
        roots: `sqrt(E loss^2)` on cells of equal length from `low` to `high`.
    """

    roots: tuple[float, ...] = (1.0,)

    @classmethod
    def measured(
        cls, half_log_snr: Float[Tensor, " n"], losses: Float[Tensor, " n"], low: float, high: float, cells: int = 32
    ) -> AdaptiveTimes:
        """From losses at levels (each without the weight `1/p`). A cell without losses has the mean root of the others.

        Raises:
            ArgumentError: no loss within the bounds.
        """
        place = ((half_log_snr - low) / (high - low) * cells).floor().long()
        inside = (place >= 0) & (place < cells)
        count = torch.bincount(place[inside], minlength=cells).double()
        roots = torch.zeros(cells, dtype=torch.float64).index_add_(0, place[inside], losses[inside].double().square()).div(count).sqrt()
        seen = roots[(count > 0) & (roots > 0)]
        if not len(seen):
            raise ArgumentError("losses", f"{len(losses)} losses", f"some that are positive and between {low} and {high}")
        return cls(low, high, tuple(torch.where((count > 0) & (roots > 0), roots, seen.mean()).tolist()))

    def cells(self, process: ScalarProcess) -> Cells:
        return Cells(self.low, self.high, torch.tensor(self.roots, dtype=torch.float64))


@dataclass(frozen=True)
class LikelihoodWeight(Weight):
    """The weight that makes a loss an estimate of the likelihood bound's integral, per number: `scale(t) / p(lambda)`, where `scale` turns
    the squared error of the loss's view into that of the noise.

    Arguments:
        times: the law of the times that the loss draws.
        view: "v" (velocity of a variance-preserving process, `alpha^2`), "noise" (1) or "data" (SNR).
    """

    times: DensityTimes
    view: str = "v"

    def __post_init__(self) -> None:
        if self.view not in ("v", "noise", "data"):
            raise ArgumentError("view", repr(self.view), "v, noise or data")

    def __call__(self, process: ScalarProcess, t: Tensor) -> Tensor:
        alpha, sigma = process.levels(t)
        # v - v_hat = -(alpha^2 + sigma^2)/sigma (x_0 - D), eps - eps_hat = -alpha/sigma (x_0 - D)
        scale = {"v": (alpha / (alpha**2 + sigma**2)) ** 2, "noise": torch.ones_like(alpha), "data": (alpha / sigma) ** 2}[self.view]
        return scale / self.times.cells(process).density(process.half_log_snr(t))


@functools.lru_cache(maxsize=32)
def _alpha_squared(process: ScalarProcess, low: float, high: float) -> Cells:
    middle = low + (high - low) * (torch.arange(_CELLS, dtype=torch.float64) + 0.5) / _CELLS
    return Cells(low, high, process.alpha(process.time(middle).clamp(0.0, 1.0)) ** 2)


def _check(low: float, high: float) -> None:
    if not -math.inf < low < high < math.inf:
        raise ArgumentError("low, high", (low, high), "low < high, both finite")
