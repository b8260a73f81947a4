r"""Three regions of space as a training set sees it: near its points, between them, and outside their convex hull.

`near` is within `reach` of a point; `outside` is not near and farther than `reach` from the convex hull; `gap` is the rest. The distance to
the hull is the least `|x - sum_i w_i x_i|` over `w >= 0`, `sum w = 1`, by non-negative least squares (Lawson & Hanson 1974).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.explain.generalising.memorization import nearest

_HULL = 400
"""At most so many samples are asked for their distance to the hull, which costs a least-squares problem each."""
_STIFFNESS = 1e4
"""How heavily `sum w = 1` weighs against the distance, in units of the data's size."""


@dataclass(frozen=True)
class Masses:
    """The shares of samples in the three regions, which sum to 1."""

    near: float
    gap: float
    outside: float


def masses(samples: Float[Tensor, "n *event"], points: Float[Tensor, "N *event"], reach: float) -> Masses:
    """How samples fall into the three regions.

    Arguments:
        samples: any number; where more than 400 are not near, the first 400 of those say how the others are.
        points: the training set.
        reach: a distance.

    Raises:
        ArgumentError: a reach that is not positive.
    """
    if not reach > 0:
        raise ArgumentError("reach", reach, "a positive distance")
    away = nearest(samples, points, 1)[0][:, 0] > reach
    far = float(away.double().mean())
    if not far:
        return Masses(1.0, 0.0, 0.0)
    outside = far * float((hull_distance(samples[away][:_HULL], points) > reach).double().mean())
    return Masses(1 - far, far - outside, outside)


def hull_distance(x: Float[Tensor, "n *event"], points: Float[Tensor, "N *event"]) -> Float[Tensor, " n"]:
    """The distance of each event to the convex hull of the points, 0 inside; float64."""
    from scipy.optimize import nnls

    cloud = points.detach().reshape(len(points), -1).to(torch.float64)
    queries = x.detach().reshape(len(x), -1).to(torch.float64)
    if cloud.shape[1] == 1:
        low, high = cloud.min(), cloud.max()
        return torch.maximum(low - queries, queries - high).clamp(min=0)[:, 0]
    centre = cloud.mean(0)
    size = max(float((cloud - centre).abs().max()), torch.finfo(torch.float64).tiny)
    corners = (cloud - centre).numpy().T / size
    matrix = np.concatenate([corners, np.full((1, corners.shape[1]), _STIFFNESS)])
    out = []
    for row in ((queries - centre) / size).numpy():
        weights, _ = nnls(matrix, np.append(row, _STIFFNESS))
        out.append(size * float(np.linalg.norm(row - corners @ (weights / weights.sum()))))
    return torch.tensor(out, dtype=torch.float64)
