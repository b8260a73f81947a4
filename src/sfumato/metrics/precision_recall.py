r"""Precision and recall of samples: how many lie where data lie, and how much of the data samples reach.

The manifold of a set is the union of the balls around its members that reach to their `k`-th nearest other member. Precision is the share
of samples within the data's manifold, recall the share of data within the samples'. Source: Kynkaanniemi et al. 2019 (arXiv 1904.06991),
eqs. 1-2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.metrics.estimate import Estimate
from sfumato.metrics.samples import as_pair


@dataclass(frozen=True)
class PrecisionRecall:
    """Both shares; their standard errors are those of counting, the manifolds being given."""

    precision: Estimate
    recall: Estimate


def precision_recall(real: Tensor, fake: Tensor, k: int = 3, block: int = 1024) -> PrecisionRecall:
    """Precision and recall of `fake` `(m, *event)` against `real` `(n, *event)`, in the space they are given in (features, for images).

    Arguments:
        real, fake: data and samples; as many of each make the two shares comparable.
        k: to which neighbour a ball reaches.
        block: rows of the distance matrix computed at a time.

    Raises:
        ArgumentError: a neighbour that is none, or no block.
        DataError: `k` samples or fewer, NaN or infinite values.
        ShapeError: events of different shapes.
    """
    if k < 1 or block < 1:
        raise ArgumentError("k, block", (k, block), "at least 1 each")
    a, b = as_pair(real, fake, least=k + 1)
    centre = a.mean(0)  # distances come from inner products, which lose digits far from the origin
    a, b = a - centre, b - centre
    return PrecisionRecall(_covered(b, a, k, block), _covered(a, b, k, block))


def _covered(points: Tensor, centres: Tensor, k: int, block: int) -> Estimate:
    """The share of `points` that lie in some ball around `centres`."""
    # the nearest member is the centre itself
    radii = torch.cat([torch.cdist(part, centres).kthvalue(k + 1, 1).values for part in torch.split(centres, block)])
    inside = torch.cat([(torch.cdist(part, centres) <= radii).any(1) for part in torch.split(points, block)])
    share = float(inside.double().mean())
    return Estimate(share, math.sqrt(share * (1 - share) / len(inside)))
