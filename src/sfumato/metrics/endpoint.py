"""How far a sampler's end points lie from the flow's, start by start."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ShapeError
from sfumato.metrics.estimate import Estimate


def endpoint_error(x: Float[Tensor, "n *event"], truth: Float[Tensor, "n *event"]) -> Estimate:
    """The mean over starts of `|x_i - truth_i|`, relative to the root mean square of `|truth_i|`; standard error over starts.

    Raises:
        ShapeError: shapes that differ.
    """
    if x.shape != truth.shape:
        raise ShapeError("x", tuple(x.shape), f"the shape of truth, {tuple(truth.shape)}")
    away = (x - truth).flatten(1).to(torch.float64).norm(dim=1) / math.sqrt(float((truth.flatten(1).to(torch.float64) ** 2).sum(1).mean()))
    spread = float(away.std()) / math.sqrt(len(away)) if len(away) > 1 else math.nan
    return Estimate(float(away.mean()), spread)
