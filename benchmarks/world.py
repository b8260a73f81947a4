"""The exact worlds: mixtures fitted to real data, whose denoiser and flow are known."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from sfumato.data import digits, patches
from sfumato.exact import Gaussian, GaussianMixture, fit_gaussian, fit_mixture
from sfumato.noise import BetaTable
from sfumato.seeds import noise

FLOOR = 1e-3
"""Added to every component's variance in every direction, as a share of the data's mean variance: some pixels never vary."""


@dataclass(frozen=True)
class World:
    """A 10-component mixture of full covariances, and the Gaussian of the same data; float64, on the peers' own table of betas."""

    name: str
    law: GaussianMixture
    gaussian: Gaussian
    process: BetaTable

    def unit(self, n: int, seed: int) -> Tensor:
        """Standard normal noise `(n, *event)`."""
        return noise(seed, n, self.law.event_shape, dtype=torch.float64).draw(0)

    def start(self, n: int, seed: int) -> Tensor:
        """Starts at the end of the process `(n, *event)`."""
        return self.process.prior_sample(self.unit(n, seed))

    @property
    def least_deviation(self) -> float:
        """The standard deviation of the thinnest direction of any component."""
        return min(float(c.spectrum.min()) for c in self.law.covariances) ** 0.5


@cache
def world(name: str) -> World:
    """The world of the `digits` or the `patches`."""
    data = digits() if name == "digits" else patches()
    stream = data.batches(1024)
    return World(name, fit_mixture(stream, 10, floor=FLOOR, seed=0), fit_gaussian(stream), BetaTable.linear())
