r"""Early times that share one condition: what a network is told of the time is constant on cells, all coefficients keep the true one.

The exact noise prediction is `eps(x, t) = -sigma_t grad log p_t`, so `d eps/dt` has a term `-sigma' grad log p_t`, which is unbounded at
`t = 0` wherever `sigma ~ sqrt(t)` (linear betas, the cosine with an offset) and bounded where `sigma ~ t` (flow matching, the
trigonometric clock, EDM). A network `F(x, f(t))` with `f` constant on cells of `[0, threshold)` has no derivative inside a cell; what
that costs is a bias, for the best answer in a cell is the mean over its times, `sum_j p(t_j | x, cell) eps(x, t_j)`.

- a network trained that way: `Wrapped(network, process, "noise", time=cells)`, for `cells(t)` is a clock;
- the same behind our preconditioning: `Preconditioned(SharedLabels(network, process, cells), process)`;
- sampling only, of a network trained without: `SharedTimes(denoiser, cells)`;
- the best that sharing allows: `SharedBelief(law, process, cells)`.

The divergence belongs to the coordinate: in log-SNR, or for the data prediction, it is another. Source: Yang et al. 2023
(arXiv 2306.11251), theorem 3.1 and section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sfumato.denoise.scaled.preconditioned import noise_label
from sfumato.denoiser import Denoiser, View, to_data
from sfumato.errors import ArgumentError
from sfumato.exact.laws.gaussian import Gaussian
from sfumato.exact.laws.mixture import GaussianMixture
from sfumato.noise.process import Time, as_time
from sfumato.noise.scalars.scalar import ScalarProcess


@dataclass(frozen=True)
class TimeCells:
    """`f(t) = labels[i]` for `edges[i] <= t < edges[i + 1]`, and `f(t) = t` from the last edge on and below the first.

    Arguments:
        edges: strictly rising times in [0, 1].
        labels: one a cell, a time inside it; by default its left end, as published.

    Raises:
        ArgumentError: edges that are no such times, or labels outside their cells.
    """

    edges: tuple[float, ...]
    labels: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.edges) < 2 or any(a >= b for a, b in pairwise(self.edges)) or not 0 <= self.edges[0] < self.edges[-1] <= 1:
            raise ArgumentError("edges", self.edges, "at least two times in [0, 1], strictly rising")
        labels = self.labels or self.edges[:-1]
        if len(labels) != len(self.edges) - 1 or not all(a <= f < b for f, (a, b) in zip(labels, pairwise(self.edges), strict=True)):
            raise ArgumentError("labels", self.labels, "one time in each cell")
        object.__setattr__(self, "labels", tuple(float(f) for f in labels))

    @classmethod
    def equal(cls, count: int = 5, threshold: float = 0.1, first: float = 0.0) -> TimeCells:
        """`count` equal cells of `[first, threshold)`; the published ones are 5 cells of the first 100 of 1000 steps."""
        return cls(_spaced(count, first, threshold))

    @classmethod
    def equal_log_snr(cls, process: ScalarProcess, count: int = 5, threshold: float = 0.1, first: float = 1e-3) -> TimeCells:
        """`count` cells of `[first, threshold)` that are equal in log-SNR, each labelled by the time in its middle there.

        Raises:
            ArgumentError: a first time without noise, beside those of the class.
        """
        if not 0 < first < threshold:
            raise ArgumentError("first, threshold", (first, threshold), "0 < first < threshold")
        ends = [float(process.half_log_snr(t)) for t in (first, threshold)]
        fine = process.time(torch.tensor(_spaced(2 * count, *ends), dtype=torch.float64)).tolist()
        fine[0], fine[-1] = first, threshold
        return cls(tuple(fine[::2]), tuple(fine[1::2]))

    def __call__(self, t: Tensor) -> Tensor:
        """`f(t)`, float64 and shaped as `t`."""
        t, cell = as_time(t), self.cell(t)
        labels = torch.tensor(self.labels, dtype=torch.float64, device=t.device)
        return torch.where(cell >= 0, labels[cell.clamp(min=0)], t)

    def cell(self, t: Tensor) -> Tensor:
        """The number of the cell of each time, -1 outside of all."""
        edges = torch.tensor(self.edges, dtype=torch.float64, device=t.device)
        cell = torch.searchsorted(edges, t.to(torch.float64).contiguous(), right=True) - 1
        return torch.where(cell < len(self.labels), cell, -1)


def _spaced(count: int, low: float, high: float) -> tuple[float, ...]:
    if count < 1:
        raise ArgumentError("count", count, "at least one cell")
    return tuple(torch.linspace(low, high, count + 1, dtype=torch.float64).tolist())


class SharedTimes(Denoiser):
    """A trained denoiser that is told `f(t)` for `t`: its answer in the given view is taken at `f(t)`, and means what it would at `t`.

    Where `f(t) = 0` a view that is infinite there cannot be asked (see `from_data`): let the cells begin above 0.

    Arguments:
        inner: the denoiser.
        cells: `f`.
        view: what the network behind it predicts.
    """

    def __init__(self, inner: Denoiser, cells: TimeCells, view: View = "noise") -> None:
        self.inner, self.cells, self.shared, self.process = inner, cells, view, inner.process

    def denoise(self, x: Tensor, t: Time, condition: Tensor | None = None) -> Tensor:
        return to_data(self.view(self.shared, x, t, condition), self.shared, x, t, self.process)

    def view(self, view: View, x: Tensor, t: Time, condition: Tensor | None = None) -> Tensor:
        # the shared view as it is, without a way to the data and back that would round
        return self.inner.view(view, x, self.cells(as_time(t)), condition) if view == self.shared else super().view(view, x, t, condition)


class SharedLabels(nn.Module):
    """A network that is told the noise level of `f(t)` in place of that of `t`, to be trained so behind `Preconditioned`.

    Arguments:
        network: `F(x, c_noise, condition)`.
        process: that of the denoiser which it stands in.
        cells: `f`.
    """

    def __init__(self, network: nn.Module, process: ScalarProcess, cells: TimeCells) -> None:
        super().__init__()
        self.network, self.process, self.cells = network, process, cells
        self.event_shape, self.classes = getattr(network, "event_shape", None), getattr(network, "classes", None)

    def forward(
        self, x: Float[Tensor, "batch *event"], c_noise: Float[Tensor, "batch"], condition: Tensor | None = None
    ) -> Float[Tensor, "batch *event"]:
        """The network's answer under the shared label."""
        t = self.process.time(-4 * c_noise.to(torch.float64)).clamp(0.0, 1.0)
        shared = noise_label(*self.process.levels(self.cells(t))).to(c_noise)
        return self.network(x, torch.where(self.cells.cell(t) >= 0, shared, c_noise), condition)


class SharedBelief(Denoiser):
    """The least squares noise prediction that is told the cell alone, over equally likely times of it: the module's mean.

    Arguments:
        law: of the clean data.
        process: what made them noisy.
        cells: the cells.
        times: the times that are drawn in training, positive; those of a cell share an answer.

    Raises:
        ArgumentError: no times, or times without noise.
    """

    def __init__(self, law: Gaussian | GaussianMixture, process: ScalarProcess, cells: TimeCells, times: Sequence[float]) -> None:
        if not times or min(times) <= 0:
            raise ArgumentError("times", list(times)[:5], "at least one time, all positive")
        self.law, self.process, self.cells, self.times = law, process, cells, tuple(times)

    def denoise(self, x: Tensor, t: Time, condition: Tensor | None = None) -> Tensor:
        """As `Denoiser.denoise`, at one time.

        Raises:
            ArgumentError: a condition, times for every sample, or a cell in which there is none of the training times.
        """
        if condition is not None or as_time(t).ndim:
            raise ArgumentError("t, condition", t, "a single time, and no condition")
        own = self.cells.cell(as_time(t))
        nodes = [float(t)] if own < 0 else [u for u in self.times if self.cells.cell(as_time(u)) == own]
        if not nodes:
            raise ArgumentError("t", float(t), "a time whose cell has been trained on")
        exact = self.law.denoiser(self.process)
        share = torch.softmax(torch.stack([self.law.through(self.process, u).log_prob(x) for u in nodes]), 0).to(x.dtype)
        noises = torch.stack([exact.noise(x, u) for u in nodes])
        mean = (share.reshape(*share.shape, *[1] * (x.ndim - 1)) * noises).sum(0)
        return to_data(mean, "noise", x, t, self.process)
