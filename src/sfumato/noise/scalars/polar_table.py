r"""A process from a table of polar coordinates: `alpha = r sin(theta)`, `sigma = r cos(theta)`.

The angle falls from `pi/2` at `t = 0` (clean) to 0 at `t = 1`, and the radius is 1 at both ends. Between nodes, which are equally far apart
in time, both are linear, so that every rate is exact for the path that is meant.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.noise.process import Time, as_time
from sfumato.noise.scalars.scalar import ScalarProcess


@dataclass(frozen=True)
class PolarTable(ScalarProcess):
    """The process of the module's head.

    Arguments:
        radii: positive, at equally spaced times from 0 to 1.
        angles: strictly falling from pi/2 to 0.

    Raises:
        ArgumentError: a table that is not one.
    """

    radii: tuple[float, ...]
    angles: tuple[float, ...]
    kind: ClassVar[str] = "polar-table"

    def __post_init__(self) -> None:
        r, angle = (torch.tensor(v, dtype=torch.float64) for v in (self.radii, self.angles))
        if len(r) != len(angle) or len(r) < 2 or not bool((r > 0).all() and torch.isfinite(r).all()):
            raise ArgumentError("radii, angles", (len(r), len(angle)), "as many positive radii as angles, at least two")
        ends = abs(float(angle[0]) - math.pi / 2) < 1e-12 and float(angle[-1]) == 0
        if not ends or not bool((angle.diff() < 0).all()):
            raise ArgumentError("angles", (float(angle[0]), float(angle[-1])), "angles that fall strictly from pi/2 to 0")

    def _cell(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Radius, its rate, the angle's rate, and the angle's distance from pi/2 (exact where that is small)."""
        r, angle = (torch.tensor(v, dtype=torch.float64, device=t.device) for v in (self.radii, self.angles))
        cells = len(r) - 1
        cell = (t * cells).floor().clamp(0, cells - 1).long()
        part = t * cells - cell
        done = math.pi / 2 - angle
        done[0] = 0
        slope, turn = r.diff() * cells, angle.diff() * cells
        return r[cell] + part * slope[cell] / cells, slope[cell], turn[cell], done[cell] - part * turn[cell] / cells

    def alpha(self, t: Time) -> Tensor:
        return self.levels(t)[0]

    def sigma(self, t: Time) -> Tensor:
        return self.levels(t)[1]

    def levels(self, t: Time) -> tuple[Tensor, Tensor]:
        t = as_time(t)
        r, _, _, done = self._cell(t)
        # cos(pi/2) is not 0 in floating point, and the end is a limit that is written in
        return torch.where(t == 1, 0.0, r * torch.cos(done)), r * torch.sin(done)

    def half_log_snr(self, t: Time) -> Tensor:
        alpha, sigma = self.levels(t)
        return torch.log(alpha) - torch.log(sigma)

    def time(self, half_log_snr: Time) -> Tensor:
        target = torch.atan(torch.exp(-torch.as_tensor(half_log_snr, dtype=torch.float64)))
        done = math.pi / 2 - torch.tensor(self.angles, dtype=torch.float64, device=target.device)
        done[0] = 0
        cell = (torch.searchsorted(done, target) - 1).clamp(0, len(done) - 2)
        return (cell + (target - done[cell]) / (done[cell + 1] - done[cell])) / (len(done) - 1)

    def alpha_rate(self, t: Time) -> Tensor:
        r, slope, turn, done = self._cell(as_time(t))
        return slope * torch.cos(done) + r * torch.sin(done) * turn

    def sigma_rate(self, t: Time) -> Tensor:
        r, slope, turn, done = self._cell(as_time(t))
        return slope * torch.sin(done) - r * torch.cos(done) * turn

    def drift(self, t: Time) -> Tensor:
        return self.alpha_rate(t) / self.alpha(t)

    def diffusion_squared(self, t: Time) -> Tensor:
        sigma = self.sigma(t)
        return 2 * sigma * (self.sigma_rate(t) - self.drift(t) * sigma)
