"""A line or a plane through the space of events, along the leading components of data: where maps are drawn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.data import Batches
from sfumato.errors import ArgumentError, DataError
from sfumato.exact import fit_gaussian

_SHADOWS = 500


@dataclass(frozen=True, eq=False)
class Section:
    """`origin + u . axes`, with `|u_i| <= reach`.

    Arguments:
        origin: `(dim,)`, flat, float64.
        axes: one or two orthonormal rows, `(axes, dim)`.
        reach: how far a map goes along each axis.
        shadow: some of the data in the coordinates `u`, to be drawn with the map, `(n, axes)`.
    """

    origin: Float[Tensor, " dim"]
    axes: Float[Tensor, "axes dim"]
    reach: float
    shadow: Float[Tensor, "n axes"]

    @classmethod
    def of(cls, points: Float[Tensor, "N *event"], margin: float = 1.25) -> Section:
        """Through the mean, along the two leading components (one, if events are single numbers).

        Arguments:
            points: the data.
            margin: how much further than the farthest of the data the map reaches.

        Raises:
            DataError: fewer than 2 points, or points without spread.
        """
        if len(points) < 2:
            raise DataError("points", f"{len(points)} points", "at least 2")
        law = fit_gaussian(Batches(points, 1024), min(2, points[0].numel()))
        axes = law.covariance.lift(torch.eye(law.covariance.rank, dtype=law.dtype)).to(torch.float64)
        flat = points.detach().reshape(len(points), -1)
        shadow = flat.to(torch.float64) @ axes.T - law.mean.to(torch.float64) @ axes.T
        reach = margin * float(shadow.abs().max())
        if not 0 < reach < float("inf"):
            raise DataError("points", f"a reach of {reach:.3g}", "finite points that are not all the same")
        return cls(law.mean.to(torch.float64), axes, reach, shadow[:: max(1, len(points) // _SHADOWS)])

    @property
    def dims(self) -> int:
        """1 for a line, 2 for a plane."""
        return len(self.axes)

    def ticks(self, cells: int) -> Float[Tensor, " cells"]:
        """The coordinates of a map along one axis.

        Raises:
            ArgumentError: fewer than 2 cells.
        """
        if cells < 2:
            raise ArgumentError("cells", cells, "at least 2 cells along an axis")
        return torch.linspace(-self.reach, self.reach, cells, dtype=torch.float64)

    def places(self, cells: int) -> Float[Tensor, "cells_to_the_dims dim"]:
        """The events of a map, row by row: the last axis is the fastest."""
        u = torch.cartesian_prod(*[self.ticks(cells)] * self.dims).reshape(-1, self.dims)
        return self.origin + u @ self.axes
