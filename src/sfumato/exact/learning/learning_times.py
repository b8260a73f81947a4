r"""When each mode of what is generated appears, in training: the first time at which its variance is half-way to where it belongs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sfumato.errors import ArgumentError, DataError, ShapeError

Halfway = Literal["geometric", "harmonic", "band"]
"""Half-way is the geometric or the harmonic mean of the first variance and the target, or 20 percent from the target."""

_BAND = 0.2
_AT_HOME = 2.0
"""A mode that starts within this factor of its target neither rises nor falls."""


@dataclass(frozen=True, eq=False)
class LearningTimes:
    """When each mode emerged, NaN where it has not yet, and which modes had to rise or to fall by more than a factor of 2."""

    times: Float[Tensor, " modes"]
    rising: Bool[Tensor, " modes"]
    falling: Bool[Tensor, " modes"]


def learning_times(
    times: Float[Tensor, " records"],
    variances: Float[Tensor, "rows columns"],
    targets: Float[Tensor, " targets"],
    halfway: Halfway = "geometric",
    smooth: float = 0.0,
) -> LearningTimes:
    """When modes emerge; between two records the logarithm of the variance is a straight line over log time (over time from time 0).

    Arguments:
        times: rising training times; the first record says where the modes start.
        variances: what is generated at these times.
        targets: where the variances belong.
        halfway: what counts as emerged, see `Halfway`.
        smooth: standard deviation, in records, of a Gaussian that the log-variances are smoothed with first; 2 suits sampled variances.

    Raises:
        ShapeError: not one row per time, or not one column per target.
        DataError: times that do not rise, variances or targets that are not positive.
        ArgumentError: an unknown rule, a negative `smooth`.
    """
    if variances.shape != (len(times), len(targets)) or len(times) < 2:
        raise ShapeError("variances", tuple(variances.shape), f"({len(times)} records of at least 2, {len(targets)} modes)")
    t = times.to(torch.float64)
    if not bool((t.diff() > 0).all()) or float(t[0]) < 0:
        raise DataError("times", t.tolist(), "training times of at least 0 that rise")
    for name, values in (("variances", variances), ("targets", targets)):
        if not bool((torch.isfinite(values) & (values > 0)).all()):
            given = f"a least value of {float(values.min()):.4g}"
            raise DataError(name, given, "positive finite variances", "Leave modes without variance out.")
    if halfway not in get_args(Halfway) or not 0 <= smooth < math.inf:
        raise ArgumentError("halfway, smooth", (halfway, smooth), f"one of {', '.join(get_args(Halfway))}, and at least 0 records")
    goal = torch.log(targets.to(torch.float64))
    curve = _smoothed(torch.log(variances.to(torch.float64)), smooth)
    first = curve[0]
    rises = first < goal
    level = _level(first, goal, rises, halfway)
    # past the level, from the side it started on
    past = torch.where(rises, curve >= level, curve <= level)
    found = past.any(0)
    after = past.to(torch.int8).argmax(0)
    before = (after - 1).clamp(min=0)
    columns = torch.arange(len(goal))
    gap = curve[after, columns] - curve[before, columns]
    share = torch.where(gap == 0, 0.0, (level - curve[before, columns]) / torch.where(gap == 0, 1.0, gap))
    low, high = t[before], t[after]
    straight = low + share * (high - low)
    geometric = torch.where(low > 0, torch.where(low > 0, low, 1.0) * (high / torch.where(low > 0, low, 1.0)) ** share, straight)
    out = torch.where(found, torch.where(after == 0, t[0], geometric), math.nan)
    away = torch.log(variances[0].to(torch.float64)) - goal
    return LearningTimes(out, away < -math.log(_AT_HOME), away > math.log(_AT_HOME))


def _level(first: Tensor, goal: Tensor, rises: Tensor, halfway: Halfway) -> Tensor:
    if halfway == "geometric":
        return (first + goal) / 2
    if halfway == "harmonic":
        return math.log(2) - torch.logaddexp(-first, -goal)
    edge = torch.log(1 + _BAND * (1 - 2 * rises.to(goal.dtype)))
    # a mode that starts inside the band has emerged
    inside = torch.where(rises, first >= goal + edge, first <= goal + edge)
    return torch.where(inside, first, goal + edge)


def _smoothed(curve: Tensor, width: float) -> Tensor:
    """Each record a Gaussian-weighted mean of those about it; at the ends the weights are those that are left."""
    if width == 0:
        return curve
    place = torch.arange(len(curve), dtype=torch.float64)
    weights = torch.exp(-((place[:, None] - place) ** 2) / (2 * width**2))
    return weights / weights.sum(1, keepdim=True) @ curve
